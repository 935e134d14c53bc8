import numpy as np
import pandas as pd
import pytest

from drywall_seg.evaluation.gains import (
    BOX_SCORES,
    CHOSEN,
    NOTHING,
    collect_delivered,
    describe_gains,
    gain_table,
    raw_scores,
)
from drywall_seg.evaluation.intervals import bootstrap_interval
from drywall_seg.evaluation.metrics import dice, iou, mask_counts, score_histogram
from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.postprocess import PostProcessing, fill_boxes, postprocess
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import load_segmenter
from drywall_seg.prompts import LABELS, canonical_prompt


def predictor(presence_cut=0.0, **steps):
    """A model that finds too much."""
    backend = TorchBackend(load_segmenter("compact", 192))
    return Predictor(backend, dict.fromkeys(LABELS, 0.1), presence_cut, dict.fromkeys(LABELS, PostProcessing(**steps)))


def test_raw_masks_are_empty_below_the_presence_cut():
    levels, target = np.uint8([[255, 200], [100, 0]]), np.uint8([[255, 0], [255, 0]])
    rows = pd.DataFrame({"threshold": [0.5, 0.5, 0.2], "presence": [0.9, 0.3, 0.4]})
    scores = raw_scores(rows, np.array([score_histogram(levels, target)] * 3), 0.4)
    assert scores[["tp", "fp", "fn"]].to_numpy().tolist() == [[1, 1, 1], [0, 0, 2], [2, 1, 0]]
    assert scores.dice.tolist() == [0.5, 0, 0.8]


def test_gains_are_those_of_each_mask_by_itself(sample_manifest):
    steps, rows = PostProcessing(closing=0.01, min_area=0.02), sample_manifest.rows("test")
    bare = predictor()
    presences = collect_delivered(bare, sample_manifest, rows)[0].presence
    model = predictor(float(presences.median()), closing=0.01, min_area=0.02)
    table = gain_table(model, {"test": collect_delivered(model, sample_manifest, rows)}).set_index(["label", "what"])
    assert len(table) == 5  # two kinds of boxes for taping areas
    results = []
    for row in rows.itertuples():
        (answer,) = bare.predict(sample_manifest.image_file(row), [canonical_prompt(row.label)])
        target = read_mask(sample_manifest.mask_file(row))
        raw = answer.mask if answer.presence >= model.presence_cut else np.zeros_like(answer.mask)
        masks = {"raw": raw, CHOSEN: postprocess(raw, steps)}
        masks |= {
            "boxes axis-aligned": fill_boxes(masks[CHOSEN], False),
            "boxes turned": fill_boxes(masks[CHOSEN], True),
        }
        counts = {name: mask_counts(mask, target) for name, mask in masks.items()}
        scores = {name: (float(dice(*c)), float(iou(*c))) for name, c in counts.items()}
        results.append({"label": row.label, "photo_id": row.photo_id, **scores})
    results = pd.DataFrame(results)
    for (label, what), row in table.iterrows():
        mine = results[results.label == label]
        raw, after = np.array(mine["raw"].tolist()), np.array(mine[what].tolist())
        assert (row.n_images, row.n_photographs) == (len(mine), mine.photo_id.nunique())
        assert (row.mean_dice_raw, row.mean_iou_raw) == pytest.approx(raw.mean(0), abs=2e-3)
        assert (row.mean_dice, row.mean_iou) == pytest.approx(after.mean(0), abs=2e-3)
        assert row.gain == pytest.approx(row.mean_dice - row.mean_dice_raw)
        interval = bootstrap_interval((after - raw)[:, 0], mine.photo_id.to_numpy())
        assert (row.low, row.high) == pytest.approx(interval, abs=2e-3)
    assert (table.gain.abs() > 1e-3).any()
    assert table.settings["crack", CHOSEN] == "closed by 1 % of the side, parts under 2 % of the photo removed"
    assert table.settings["taping_area", "boxes turned"].endswith("removed, each part its box, turned")


def test_where_nothing_is_chosen_the_gain_is_nil(sample_manifest):
    model = predictor()
    scored = {
        split: collect_delivered(model, sample_manifest, sample_manifest.rows(split)) for split in ("test", "val")
    }
    table = gain_table(model, scored)
    rows = table[table.what == CHOSEN]
    assert rows.split.tolist() == ["test"] * 3 + ["val"] * 3 and rows.label.tolist() == list(LABELS) * 2
    assert set(rows.settings) == {NOTHING} and not rows[["gain", "low", "high"]].to_numpy().any()
    assert rows.mean_dice.equals(rows.mean_dice_raw) and rows.mean_iou.equals(rows.mean_iou_raw)
    boxes = table[table.what != CHOSEN]
    assert set(boxes.label) == {"taping_area"} and len(boxes) == 4
    scores = scored["test"][0]
    assert (scores[BOX_SCORES].notna().all(axis=1) == (scores.label == "taping_area")).all()


def test_without_rows_the_table_has_none(sample_manifest):
    model = predictor()
    assert gain_table(model, {"test": collect_delivered(model, sample_manifest, sample_manifest.rows("none"))}).empty


def test_the_sentence_names_what_is_done_and_what_it_gains():
    row = {"split": "test", "label": "crack", "what": CHOSEN, "settings": NOTHING, "gain": 0.0, "low": 0, "high": 0}
    turned = {**row, "label": "taping_area", "what": "boxes turned", "settings": "x", "gain": -0.02, "low": -0.03}
    text = describe_gains(pd.DataFrame([row, turned]))
    assert text.startswith(
        "Before delivery nothing is done: no step is known to gain more on val than chance would. Boxes"
    )
    assert "mean Dice: turned -0.020, 95 % interval -0.030 to +0.000." in text
    alone = {**row, "settings": "closed by 1 % of the side", "gain": 0.0123, "low": np.nan}
    text = describe_gains(pd.DataFrame([alone, {**alone, "split": "val", "gain": 0.5}]))
    assert text.startswith("Before delivery crack is closed by 1 % of the side (mean Dice +0.012).")
    assert "Boxes" not in text and "0.5" not in text
    assert "+0.500" in describe_gains(pd.DataFrame([{**alone, "split": "val", "gain": 0.5}]))
