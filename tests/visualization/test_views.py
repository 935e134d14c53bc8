import hashlib

import numpy as np
import pytest
from PIL import Image

from drywall_seg.evaluation.metrics import dice, iou, mask_counts
from drywall_seg.inference import Predictor
from drywall_seg.inference.scores import first_level
from drywall_seg.visualization.views import (
    BOTH,
    FOUND,
    MISSED,
    Item,
    look,
    paint,
    photo_items,
    reduce_by,
    scores_at,
    threshold_of,
    val_items,
)


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("compact")


def test_every_level_has_a_threshold_of_three_places_whose_first_level_it_is():
    thresholds = [threshold_of(level) for level in range(256)]
    assert [first_level(threshold) for threshold in thresholds] == list(range(256))
    assert thresholds == [round(threshold, 3) for threshold in thresholds]
    assert thresholds[:2] == [0.0, 0.003] and thresholds[-1] == 1.0


def test_items_are_of_val_with_a_target_and_each_of_another_photograph(predictor, sample_manifest):
    items = val_items(predictor, sample_manifest, per_label=2)
    rows = {row.mask_path: row for row in sample_manifest.table.itertuples()}
    found = [rows[item.truth.relative_to(sample_manifest.folder).as_posix()] for item in items]
    assert {row.split for row in found} == {"val"} and all(row.mask_area for row in found)
    keys = [(row.label, row.photo_id) for row in found]
    assert len(set(keys)) == len(keys) == 6
    assert [item.name for item in items] == [row.image_id.rpartition("/")[2] for row in found]


def test_figures_are_those_of_the_mask_at_every_level(predictor, sample_manifest):
    for item in val_items(predictor, sample_manifest, per_label=1):
        view = look(predictor, item)
        assert view.sha256 == hashlib.sha256(item.photo.read_bytes()).hexdigest()
        for level in range(256):
            counts = mask_counts(np.where(view.levels >= level, 255, 0), view.target)
            assert scores_at(view, threshold_of(level)) == {
                **dict(zip(("tp", "fp", "fn"), counts, strict=True)),
                "iou": float(iou(*counts)),
                "dice": float(dice(*counts)),
                "area": (counts[0] + counts[1]) / view.levels.size,
            }


def test_without_truth_there_is_an_area_alone(predictor, sample_manifest):
    photo = sample_manifest.image_file(next(sample_manifest.table.itertuples()))
    (item,) = photo_items([photo], ["segment crack"])
    view = look(predictor, item)
    scores = scores_at(view, 0.5)
    assert scores.pop("area") == np.count_nonzero(view.levels >= 128) / view.levels.size
    assert set(scores.values()) == {None}


@pytest.mark.parametrize(
    ("prompt", "label", "understood"),
    [
        ("segment crack", "crack", True),
        ("Segment wall crack!", "crack", True),
        ("segment dog", None, False),
    ],
)
def test_a_sentence_that_is_no_labels_own_is_said_to_be_none(predictor, sample_manifest, prompt, label, understood):
    photo = sample_manifest.image_file(next(sample_manifest.table.itertuples()))
    view = look(predictor, Item("a", photo, prompt))
    assert view.understood == understood
    assert label is None or view.label == label


def test_a_truth_of_another_size_is_refused(predictor, sample_manifest, tmp_path):
    photo = sample_manifest.image_file(next(sample_manifest.table.itertuples()))
    Image.new("L", (3, 2)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: its size \(2, 3\) is not that of"):
        look(predictor, Item("a", photo, "segment crack", tmp_path / "m.png"))


def test_a_line_of_one_pixel_stays_when_it_is_reduced():
    levels = np.zeros((7, 5), np.uint8)
    levels[6, 4] = 9
    levels[1, 1] = 7
    assert reduce_by(levels, 3).tolist() == [[7, 0], [0, 0], [0, 9]]
    assert reduce_by(levels, 1) is levels


def test_colours_say_what_agrees():
    canvas = np.full((1, 4, 3), 255, np.uint8)
    mask, target = np.uint8([[255, 255, 0, 0]]), np.uint8([[255, 0, 255, 0]])

    def mixed(color):
        return [(255 + 3 * int(color[i : i + 2], 16)) // 4 for i in (1, 3, 5)]

    assert paint(canvas, mask, target)[0].tolist() == [mixed(BOTH), mixed(FOUND), mixed(MISSED), [255] * 3]
    assert paint(canvas, mask, None)[0].tolist() == [mixed(FOUND), mixed(FOUND), [255] * 3, [255] * 3]
    assert (canvas == 255).all()
