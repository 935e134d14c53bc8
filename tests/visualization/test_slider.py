import re
import shutil

import ipywidgets as widgets
import numpy as np
import pytest

from drywall_seg.evaluation.metrics import dice, iou, mask_counts
from drywall_seg.inference import Predictor
from drywall_seg.inference.postprocess import PostProcessing, postprocess
from drywall_seg.models import COMPACT
from drywall_seg.runs import read_json
from drywall_seg.visualization.slider import threshold_slider
from drywall_seg.visualization.views import Item, look, photo_items, threshold_of, val_items


@pytest.fixture
def predictor():
    return Predictor.load("compact")


@pytest.fixture
def items(predictor, sample_manifest):
    return val_items(predictor, sample_manifest, 2)


def every(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def named(box, name):
    return next(w for w in every(box) if getattr(w, "description", "").startswith(name))


def texts(box):
    return " ".join(w.value for w in every(box) if isinstance(w, widgets.HTML))


def shown_figures(box):
    """What the page says: IoU, Dice, and the pixels found and true, found alone, missed."""
    return re.findall(r"<b>([\d.]+)</b>", texts(box))


def figures(mask, target):
    tp, fp, fn = mask_counts(mask, target)
    return [f"{iou(tp, fp, fn):.4f}", f"{dice(tp, fp, fn):.4f}", str(tp), str(fp), str(fn)]


def test_the_figures_are_those_of_the_raw_mask_at_every_level(predictor, items):
    box = threshold_slider(predictor, items)
    view = look(predictor, items[0])
    for level in range(256):
        named(box, "Threshold").value = level
        assert shown_figures(box) == figures(np.where(view.levels >= level, 255, 0), view.target)
    assert "Of the raw mask" in texts(box)


def test_with_post_processing_they_are_those_of_the_delivered_mask(predictor, items):
    predictor.postprocessing["crack"] = PostProcessing(closing=0.01)
    crack = [item for item in items if item.prompt == "segment crack"]
    box = threshold_slider(predictor, crack)
    view = look(predictor, crack[0])
    named(box, "Threshold").value = 60
    named(box, "close gaps (as chosen)").value = True
    named(box, "drop small parts").value = True
    raw = np.where(view.levels >= 60, 255, 0).astype(np.uint8)
    delivered = postprocess(raw, PostProcessing(closing=0.01, min_area=0.003))
    assert not np.array_equal(raw, delivered)
    assert shown_figures(box) == figures(delivered, view.target)
    assert "Of the delivered mask" in texts(box)
    predictor.presence_cut = 1.1
    box = threshold_slider(predictor, crack)
    named(box, "empty below presence").value = True
    assert shown_figures(box) == figures(raw * 0, view.target)
    assert "Nothing found" in texts(box)


def test_photos_are_read_when_they_are_chosen_and_not_again(predictor, items, monkeypatch):
    asked = []
    whole = predictor.predict
    monkeypatch.setattr(predictor, "predict", lambda image, prompts: asked.append(prompts[0]) or whole(image, prompts))
    box = threshold_slider(predictor, items)
    assert asked == [items[0].prompt]
    assert named(box, "Previous photo").disabled and not named(box, "Next photo").disabled
    named(box, "Next photo").click()
    named(box, "Previous photo").click()
    assert asked == [items[0].prompt] * 2
    named(box, "Sentence").value = "segment crack"
    assert asked[2:] == ["segment crack"]
    assert [name for name, _ in named(box, "Photo").options] == [i.name for i in items if i.prompt == "segment crack"]
    assert threshold_of(named(box, "Threshold").value) == pytest.approx(predictor.thresholds["crack"], abs=0.004)


def test_a_threshold_is_kept_with_the_note_that_it_was_by_hand(predictor, items, tmp_path):
    shutil.copytree(COMPACT, tmp_path / "checkpoint")
    before = read_json(tmp_path / "checkpoint" / "thresholds.json")
    box = threshold_slider(predictor, items, tmp_path / "checkpoint")
    label = look(predictor, items[0]).label
    for level in (100, 51):
        named(box, "Threshold").value = level
        named(box, "Keep").click()
    stored = read_json(tmp_path / "checkpoint" / "thresholds.json")
    assert stored["thresholds"] == before["thresholds"] | {label: 0.2}
    assert stored["chosen"] == f"{before['chosen']}; by hand: {label} 0.2 looking at val"
    assert set(stored["by_hand"][label]) == {"threshold", "looking_at", "time"}
    assert stored["reference"] == before["reference"]
    again = Predictor.load(tmp_path / "checkpoint")
    assert again.thresholds[label] == predictor.thresholds[label] == 0.2
    assert again.chosen == predictor.chosen == stored["chosen"]
    assert "run 03_evaluate again" in texts(box)
    named(box, "Next photo").click()
    named(box, "Previous photo").click()
    assert f"threshold for {label} is 0.200" in texts(box)


def test_states_are_said(predictor, items, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    hostile = Item("<script>\u202e.jpg", items[0].photo, "segment <b>dog</b>")
    shutil.copytree(COMPACT, tmp_path / "checkpoint")
    broken = photo_items([tmp_path / "broken.jpg"], ["segment crack"])
    box = threshold_slider(predictor, [*broken, hostile], tmp_path / "checkpoint")
    assert "Cannot be shown" in texts(box) and "broken.jpg" in texts(box)
    assert named(box, "Keep").disabled
    named(box, "Sentence").value = "segment <b>dog</b>"
    said = texts(box)
    assert "Cannot be shown" not in said
    assert "none of the model&#x27;s labels&#x27; own" in said and "No truth is known" in said
    assert named(box, "Keep").disabled and named(box, "show the truth").disabled
    assert "<script>" not in said and "<b>dog" not in said
    assert named(box, "Photo").options[0][0] == r"<script>\u202e.jpg"  # a Dropdown shows text, not HTML


def test_a_photo_that_cannot_be_read_leaves_the_threshold_where_it_was(predictor, items, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    box = threshold_slider(predictor, photo_items([items[0].photo, tmp_path / "broken.jpg"], [items[0].prompt]))
    named(box, "Threshold").value = 51
    named(box, "Next photo").click()
    assert "Cannot be shown" in texts(box)
    named(box, "Previous photo").click()
    assert "Cannot be shown" not in texts(box) and named(box, "Threshold").value == 51


def test_nothing_to_show_is_said(predictor):
    assert "Nothing to show" in threshold_slider(predictor, []).value


def test_a_picture_stays_in_a_saved_notebook(predictor, items, monkeypatch):
    shown = []
    monkeypatch.setattr("drywall_seg.visualization.static.display", lambda bundle, raw: shown.append(bundle))
    threshold_slider(predictor, items)._ipython_display_()
    assert items[0].name in shown[0]["text/html"] and "image/png" in shown[0]
    assert "application/vnd.jupyter.widget-view+json" in shown[1]


def test_without_a_checkpoint_of_its_own_nothing_can_be_kept(predictor, items):
    box = threshold_slider(predictor, items)
    assert named(box, "Keep").disabled and "no checkpoint of the run" in texts(box)
