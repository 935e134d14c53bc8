import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from drywall_seg.evaluation.metrics import (
    counts_at,
    dice,
    iou,
    mask_counts,
    score_histogram,
    score_rows,
    summarise,
)
from drywall_seg.inference.scores import first_level, to_levels

# 2 x 2 masks, worked by hand: mask, target, tp, fp, fn, IoU, Dice.
TABLE = [
    ([[1, 1], [0, 0]], [[1, 0], [1, 0]], 1, 1, 1, 1 / 3, 1 / 2),
    ([[1, 0], [0, 0]], [[1, 0], [0, 0]], 1, 0, 0, 1, 1),
    ([[1, 1], [1, 1]], [[1, 0], [0, 0]], 1, 3, 0, 1 / 4, 2 / 5),
    ([[0, 0], [0, 0]], [[1, 1], [0, 0]], 0, 0, 2, 0, 0),
    ([[0, 1], [0, 0]], [[0, 0], [0, 0]], 0, 1, 0, 0, 0),
    ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 0, 0, 0, 1, 1),  # the stated rule for empty against empty
]


@pytest.mark.parametrize(("mask", "target", "tp", "fp", "fn", "expected_iou", "expected_dice"), TABLE)
def test_hand_worked_masks(mask, target, tp, fp, fn, expected_iou, expected_dice):
    mask, target = (np.uint8(array) * 255 for array in (mask, target))
    assert mask_counts(mask, target) == (tp, fp, fn)
    assert iou(tp, fp, fn) == pytest.approx(expected_iou)
    assert dice(tp, fp, fn) == pytest.approx(expected_dice)


@pytest.mark.parametrize("seed", range(5))
def test_torchmetrics_agrees(seed):
    rng = np.random.default_rng(seed)
    mask, target = rng.random((2, 37, 23)) < rng.uniform(0.1, 0.9, (2, 1, 1))
    counts = mask_counts(mask, target)
    tensors = torch.tensor(mask).int(), torch.tensor(target).int()
    assert iou(*counts) == pytest.approx(float(binary_jaccard_index(*tensors)), abs=1e-6)
    assert dice(*counts) == pytest.approx(float(binary_f1_score(*tensors)), abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_histogram_gives_every_threshold_exactly(seed):
    rng = np.random.default_rng(seed)
    probs = rng.random((9, 7), dtype=np.float32) ** rng.integers(1, 4)
    target = (rng.random((9, 7)) < 0.3) * np.uint8(255)
    histogram = score_histogram(to_levels(probs), target)
    assert histogram.sum() == probs.size
    for threshold in np.arange(0, 101) / 100:
        mask = to_levels(probs) >= first_level(threshold)
        assert tuple(counts_at(histogram, threshold)) == mask_counts(mask, target)


def test_levels_of_the_thresholds_that_are_whole():
    # 255 t is a whole number at multiples of 0.2 only; a rounding error there would lose a level.
    assert [first_level(t) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)] == [0, 51, 102, 153, 204, 255]
    assert first_level(0.5) == 128
    assert to_levels(np.float32([0, 0.4, 0.5, 1])).tolist() == [0, 102, 128, 255]


def row(label, photo, tp, fp, fn, threshold=0.5):
    return {"label": label, "photo_id": photo, "tp": tp, "fp": fp, "fn": fn, "threshold": threshold}


def test_summary_by_hand():
    rows = [
        row("crack", "a", 1, 1, 2),  # IoU 1/4, Dice 2/5
        row("crack", "a", 6, 0, 2),  # 3/4, 6/7
        row("crack", "b", 0, 0, 0),  # empty and right: 1, 1
        row("crack", "c", 0, 4, 0),  # empty and wrong: 0, 0
        row("taping_area", "d", 2, 0, 0, 0.3),  # 1, 1
        row("joint_line", "d", 0, 0, 5),  # 0, 0, not in overall
    ]
    summary = summarise(score_rows(pd.DataFrame(rows)))
    crack, overall = summary["labels"]["crack"], summary["overall"]
    assert crack["mean_iou"] == pytest.approx((1 / 4 + 3 / 4 + 1 + 0) / 4)
    assert crack["mean_dice"] == pytest.approx((2 / 5 + 6 / 7 + 1 + 0) / 4)
    assert crack["pooled_iou"] == pytest.approx(7 / (7 + 5 + 4))
    assert crack["pooled_dice"] == pytest.approx(14 / (14 + 5 + 4))
    assert (crack["n_images"], crack["n_photographs"]) == (4, 3)
    assert (crack["n_empty_target"], crack["n_empty_right"]) == (2, 1)
    assert crack["threshold"] == 0.5
    assert (overall["n_images"], overall["threshold"]) == (5, None)
    assert overall["mean_iou"] == pytest.approx((1 / 4 + 3 / 4 + 1 + 0 + 1) / 5)
    assert list(summary["labels"]) == ["crack", "taping_area", "joint_line"]


def test_summary_of_nothing_and_of_joint_lines_alone():
    assert summarise(score_rows(pd.DataFrame(columns=["label", "tp", "fp", "fn"]))) == {"overall": None, "labels": {}}
    only = summarise(score_rows(pd.DataFrame([row("joint_line", "d", 1, 1, 0)])))
    assert only["overall"] == only["labels"]["joint_line"]
