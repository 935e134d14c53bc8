import base64
import io
import json
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from drywall_seg.inference import Predictor
from drywall_seg.visualization.viewer import encode_view, threshold_viewer
from drywall_seg.visualization.views import Item, look, val_items

HOSTILE = '</script><script>alert("x")</script> \u202egpj.exe'


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("compact")


@pytest.fixture(scope="module")
def view(predictor, sample_manifest):
    return look(predictor, val_items(predictor, sample_manifest, 1)[0])


def unpacked(text, size):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(size)


def data_of(block):
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', block, re.S)[1])


@pytest.mark.parametrize(("side", "factor"), [(1280, 1), (320, 1), (319, 2), (100, 4)])
def test_a_view_is_packed_without_loss_at_a_whole_fraction_of_its_size(view, side, factor):
    entry = encode_view(view, side)
    assert entry["factor"] == factor
    assert entry["own_size"] == list(view.levels.shape)
    assert entry["size"] == [-(-length // factor) for length in view.levels.shape]
    levels = np.cumsum(unpacked(entry["levels"], entry["size"]), axis=1, dtype=np.uint8)
    truth = unpacked(entry["truth"], entry["size"])
    for top in (0, entry["size"][0] // 2, entry["size"][0] - 1):
        for left in (0, entry["size"][1] - 1):
            square = np.s_[top * factor : (top + 1) * factor, left * factor : (left + 1) * factor]
            assert levels[top, left] == view.levels[square].max()
            assert truth[top, left] == (view.target[square].max() > 0)
    assert np.array_equal(entry["histogram"], view.histogram)  # of its own size, whatever is shown
    photo = Image.open(io.BytesIO(base64.b64decode(entry["photo"].partition(",")[2])))
    assert [photo.height, photo.width] == entry["size"]


def test_the_block_holds_everything_and_asks_for_nothing(view):
    block = threshold_viewer([view]).data
    assert data_of(block)["views"][0]["name"] == view.item.name
    assert not re.search(r"https?://", block)
    assert 'src="data:image/jpeg' in block  # what stands there where no script runs


def test_hostile_names_are_text(predictor, view):
    shown = look(predictor, Item(HOSTILE, view.item.photo, f"segment {HOSTILE}", None, HOSTILE))
    block = threshold_viewer([shown]).data
    assert block.count("<script") == 3 and "alert(" in block
    entry = data_of(block)["views"][0]
    assert entry["name"] == entry["note"] == HOSTILE.replace("\u202e", r"\u202e")
    assert "\u202e" not in block
    assert not entry["understood"]


def test_the_same_views_give_the_same_block(view):
    assert threshold_viewer([view]).data == threshold_viewer([view]).data


def test_nothing_to_show_is_said():
    block = threshold_viewer([]).data
    assert "Nothing to show" in block and "<script" not in block
