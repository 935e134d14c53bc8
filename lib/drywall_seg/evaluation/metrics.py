"""Counts first, scores second: score histograms, tp/fp/fn, IoU and Dice, and their summaries."""

from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.evaluation.intervals import bootstrap_interval
from drywall_seg.evaluation.thin import CRACK_SCORES, LINE_SCORES
from drywall_seg.inference.scores import first_level
from drywall_seg.prompts import LABELS, TASK_LABELS

SCORES = ["iou", "dice", *CRACK_SCORES, *LINE_SCORES]


def score_histogram(levels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Counts the 256 levels over target pixels and over all others.

    Args:
        levels: uint8 (H, W), round(255 * prob).
        target: (H, W), target where above 0.

    Returns:
        int64 (2, 256): row 0 counts the other pixels, row 1 the target's.

    >>> score_histogram(np.uint8([[255, 0]]), np.uint8([[255, 0]]))[:, [0, 255]].tolist()
    [[1, 0], [0, 1]]
    """
    index = levels.ravel().astype(np.int64) + 256 * (target.ravel() > 0)
    return np.bincount(index, minlength=512).reshape(2, 256)


def counts_at(histograms: np.ndarray, threshold: float) -> np.ndarray:
    """Returns tp, fp and fn of the raw mask at a threshold: (..., 2, 256) to (..., 3)."""
    level = first_level(threshold)
    above = histograms[..., level:].sum(-1)
    fp, tp = above[..., 0], above[..., 1]
    return np.stack([tp, fp, histograms[..., 1, :].sum(-1) - tp], axis=-1)


def mask_counts(mask: np.ndarray, target: np.ndarray) -> tuple[int, int, int]:
    """Returns tp, fp and fn of a mask (H, W) against a target (H, W), both true where above 0."""
    mask, target = mask > 0, target > 0
    tp = int(np.count_nonzero(mask & target))
    return tp, int(np.count_nonzero(mask)) - tp, int(np.count_nonzero(target)) - tp


def iou(tp: Any, fp: Any, fn: Any) -> Any:
    """Returns tp / (tp + fp + fn); 1 where target and prediction are both empty.

    >>> float(iou(1, 1, 2)), float(iou(0, 0, 0)), float(iou(0, 3, 0))
    (0.25, 1.0, 0.0)
    """
    return _ratio(np.asarray(tp), np.asarray(tp) + fp + fn)


def dice(tp: Any, fp: Any, fn: Any) -> Any:
    """Returns 2 tp / (2 tp + fp + fn); 1 where target and prediction are both empty."""
    return _ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))


def score_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Adds iou and dice to rows with tp, fp and fn."""
    counts = [table[name].to_numpy() for name in ("tp", "fp", "fn")]
    return table.assign(iou=iou(*counts), dice=dice(*counts))


def summarise(per_image: pd.DataFrame) -> dict[str, Any]:
    """Summarises scored rows, one per (image, label), per label and overall.

    Overall is over the rows of the task's labels (crack and taping_area), as the reference report has it, or over
    all rows where there are none of those.

    Args:
        per_image: Columns label, photo_id, threshold, tp, fp, fn, iou, dice.

    Returns:
        `overall` and `labels`, each with n_images, n_photographs, n_empty_target (images without any target, which
        score 1 where the mask is empty too and 0 where not), n_empty_right (those that score 1), n_empty_mask (images
        where nothing was found), threshold (None where the rows have several), mean_iou, mean_dice (means over
        images), cldice (a mean too; None unless all rows have it), pooled_iou, pooled_dice (of the summed counts), for
        labels the means of the other scores of `thin.py` that their rows have, with n_joint_line_truth, the images
        that have such a truth, and interval_95: bounds of each mean, from bootstrapped photographs.
        An empty table has `overall` None.
    """
    if per_image.empty:
        return {"overall": None, "labels": {}}
    task = per_image[per_image.label.isin(TASK_LABELS)]
    labels = [label for label in LABELS if (per_image.label == label).any()]
    return {
        "overall": _summary(task if len(task) else per_image, ["iou", "dice"]),
        "labels": {label: _summary(per_image[per_image.label == label], SCORES) for label in labels},
    }


def _summary(rows: pd.DataFrame, scores: list[str]) -> dict[str, Any]:
    tp, fp, fn = (int(rows[name].sum()) for name in ("tp", "fp", "fn"))
    empty = rows[rows.tp + rows.fn == 0]
    thresholds = rows.threshold.unique()
    if "cldice" in rows and rows.cldice.notna().all():
        scores = [*scores, "cldice"]
    having = {name: rows[rows[name].notna()] for name in scores if name in rows}
    having = {name: known for name, known in having.items() if len(known)}
    intervals = {n: bootstrap_interval(known[n].to_numpy(), known.photo_id.to_numpy()) for n, known in having.items()}
    return {
        "n_images": len(rows),
        "n_photographs": int(rows.photo_id.nunique()),
        "n_empty_target": len(empty),
        "n_empty_right": int((empty.fp == 0).sum()),
        "n_empty_mask": int((rows.tp + rows.fp == 0).sum()),
        "threshold": float(thresholds[0]) if len(thresholds) == 1 else None,
        "cldice": None,
        **{_mean_of(name): float(known[name].mean()) for name, known in having.items()},
        **({"n_joint_line_truth": len(having["joint_line_f1"])} if "joint_line_f1" in having else {}),
        "pooled_iou": float(iou(tp, fp, fn)),
        "pooled_dice": float(dice(tp, fp, fn)),
        "interval_95": {_mean_of(name): bounds for name, bounds in intervals.items()},
    }


def _mean_of(score: str) -> str:
    return score if score == "cldice" else f"mean_{score}"  # the name that metrics.json has for it
