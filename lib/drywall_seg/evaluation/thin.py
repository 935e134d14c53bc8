"""Scores of thin structures: centre lines compared within a tolerance, instead of areas."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

LINE_TOLERANCE = 0.01
"""Of a joint's centre line, as a share of the photo's longer side."""


class LineCounts(NamedTuple):
    """Pixels of two centre lines, and how many of each lie near the other."""

    pred_near: int
    pred: int
    true_near: int
    true: int


def centre_line_counts(mask: np.ndarray, target: np.ndarray, tolerance: float | None = None) -> LineCounts:
    """Compares the skeleton of a mask with the skeleton of its target.

    The relaxed precision and recall of road extraction (Mnih & Hinton 2010, doi:10.1007/978-3-642-15567-3_16).

    Args:
        mask: (H, W), predicted where above 0.
        target: (H, W), true where above 0.
        tolerance: In pixels, inclusive; None for 1 % of the longer side.
    """
    if tolerance is None:
        tolerance = LINE_TOLERANCE * max(mask.shape)
    lines = [skeletonize(array > 0) for array in (mask, target)]
    near = [line & _within(other, tolerance) for line, other in zip(lines, lines[::-1], strict=True)]
    return LineCounts(*(int(np.count_nonzero(a)) for a in (near[0], lines[0], near[1], lines[1])))


def line_scores(counts: LineCounts) -> dict[str, float]:
    """Returns line_precision, line_recall and line_f1, each in [0, 1].

    An empty prediction has precision 1 and an empty target recall 1: with both empty all are 1, with one of them
    empty F1 is 0.

    >>> line_scores(LineCounts(2, 4, 3, 3))
    {'line_precision': 0.5, 'line_recall': 1.0, 'line_f1': 0.6666666666666666}
    """
    precision = counts.pred_near / counts.pred if counts.pred else 1.0
    recall = counts.true_near / counts.true if counts.true else 1.0
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0.0
    return {"line_precision": precision, "line_recall": recall, "line_f1": f1}


def _within(line: np.ndarray, tolerance: float) -> np.ndarray:
    if not line.any():  # the distance to nothing
        return np.zeros_like(line)
    return distance_transform_edt(~line) <= tolerance
