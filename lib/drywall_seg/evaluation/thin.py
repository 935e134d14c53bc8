"""Scores of thin structures, which areas judge badly: skeletons, outlines, and distances within a tolerance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

LINE_TOLERANCE = 0.01
"""Of a joint's centre line, as a share of the photo's longer side."""

THIN_LABELS = ("crack", "joint_line")
"""Whose truth is thin, so that clDice says something: that of a taping area is a filled box."""
CRACK_SCORES = ["tolerance_f1_2px", "tolerance_f1_4px", "boundary_f1"]
LINE_SCORES = ["joint_line_precision", "joint_line_recall", "joint_line_f1"]


class Matches(NamedTuple):
    """Pixels of a predicted and of a true set, and how many of each match the other."""

    pred_matched: int
    pred: int
    true_matched: int
    true: int


def precision_recall_f1(matches: Matches) -> tuple[float, float, float]:
    """Returns precision, recall and F1, each in [0, 1].

    An empty prediction has precision 1 and an empty target recall 1: with both empty all are 1, with one of them
    empty F1 is 0.

    >>> precision_recall_f1(Matches(2, 4, 3, 3))
    (0.5, 1.0, 0.6666666666666666)
    """
    precision = matches.pred_matched / matches.pred if matches.pred else 1.0
    recall = matches.true_matched / matches.true if matches.true else 1.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def match_within(pred: np.ndarray, true: np.ndarray, *tolerances: float) -> list[Matches]:
    """Matches the pixels of two sets that lie within each of some tolerances of the other set.

    The relaxed precision and recall of road extraction (Mnih & Hinton 2010, doi:10.1007/978-3-642-15567-3_16).

    Args:
        pred: bool (H, W).
        true: bool (H, W).
        tolerances: Largest distances between pixel centres, in pixels, inclusive.
    """
    n_pred, n_true = np.count_nonzero(pred), np.count_nonzero(true)
    near = zip(_count_near(pred, true, tolerances), _count_near(true, pred, tolerances), strict=True)
    return [Matches(pred_near, n_pred, true_near, n_true) for pred_near, true_near in near]


def boundary_matches(mask: np.ndarray, target: np.ndarray) -> Matches:
    """Matches the outlines of mask and target (H, W), pixels with a neighbour outside, within 2 px at 640.

    The boundary F measure of Martin, Fowlkes & Malik 2004 (doi:10.1109/TPAMI.2004.1273918), without their one-to-one
    assignment. Where one of the two is empty nothing matches, though a mask of the whole photo has no outline.
    """
    if mask.any() != target.any():
        return Matches(0, int(np.count_nonzero(mask)), 0, int(np.count_nonzero(target)))
    outlines = (outline(array > 0) for array in (mask, target))
    return match_within(*outlines, 2 * max(mask.shape) / 640)[0]


def skeleton_matches(mask: np.ndarray, target: np.ndarray) -> Matches:
    """Matches the skeleton of each with the other's area, for clDice (https://arxiv.org/abs/2003.07311)."""
    mask, target = mask > 0, target > 0
    pred, true = skeleton(mask), skeleton(target)
    return Matches(*(int(np.count_nonzero(a)) for a in (pred & target, pred, true & mask, true)))


def cldice(mask: np.ndarray, target: np.ndarray) -> float:
    """Returns clDice of mask and target (H, W), in [0, 1]: 1 where both are empty, 0 where one is."""
    return precision_recall_f1(skeleton_matches(mask, target))[2]


def centre_line_matches(mask: np.ndarray, target: np.ndarray) -> Matches:
    """Matches the skeletons of mask and target (H, W) within 1 % of the longer side."""
    return match_within(skeleton(mask > 0), skeleton(target > 0), LINE_TOLERANCE * max(mask.shape))[0]


def crack_scores(mask: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Returns tolerance_f1_2px and tolerance_f1_4px (pixels at 640) and boundary_f1 (2 px at 640)."""
    pixel = max(mask.shape) / 640
    matches = *match_within(mask > 0, target > 0, 2 * pixel, 4 * pixel), boundary_matches(mask, target)
    scores = [precision_recall_f1(m)[2] for m in matches]
    return dict(zip(CRACK_SCORES, scores, strict=True))


def joint_line_scores(mask: np.ndarray, joint_lines: np.ndarray) -> dict[str, float]:
    """Returns joint_line_precision, joint_line_recall and joint_line_f1 of a mask's centre lines, both (H, W).

    The mask is of a joint line, or of a taping area, whose centre line should be the joint too.
    """
    scores = precision_recall_f1(centre_line_matches(mask, joint_lines))
    return dict(zip(LINE_SCORES, scores, strict=True))


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Returns the skeleton of a mask, bool (H, W) both (Zhang & Suen 1984, in scikit-image)."""
    thinned = np.zeros_like(mask)
    for window in find_objects(mask.astype(np.uint8)):  # empty for an empty mask; a window is smaller than the photo
        padded = np.pad(mask[window], 1)  # the border of the window is none of the mask's
        thinned[window] = skeletonize(padded)[1:-1, 1:-1]
    return thinned


def outline(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask that have one of their four neighbours outside it, bool (H, W) both."""
    padded = np.pad(mask, 1, constant_values=True)  # what lies outside the photo is no border
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _points(mask: np.ndarray) -> np.ndarray:
    return np.column_stack(np.divmod(np.flatnonzero(mask), mask.shape[1]))  # several times as fast as argwhere


def _count_near(points: np.ndarray, others: np.ndarray, tolerances: Sequence[float]) -> list[int]:
    """Counts points within each tolerance of others; those outside them are nearest to a pixel of their outline."""
    far, count = points & ~others, np.count_nonzero(points & others)
    edge, asked = _points(outline(others)), _points(far)
    if not len(edge) or not len(asked):
        return [count] * len(tolerances)
    distances, _ = cKDTree(edge).query(asked, distance_upper_bound=max(tolerances) + 1e-6)
    return [count + np.count_nonzero(distances <= tolerance + 1e-9) for tolerance in tolerances]
