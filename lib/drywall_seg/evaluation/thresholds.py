"""Thresholds and the presence cut, chosen on val."""

import numpy as np
import pandas as pd

from drywall_seg.evaluation.metrics import counts_at, dice

CANDIDATES = np.arange(1, 100) / 100


def sweep(histograms: np.ndarray) -> np.ndarray:
    """Returns the mean Dice over images at each of the 99 candidates, for histograms (N, 2, 256); N above 0."""
    return np.array([dice(*counts_at(histograms, t).T).mean() for t in CANDIDATES])


def choose_thresholds(rows: pd.DataFrame, histograms: np.ndarray) -> dict[str, float]:
    """Chooses, for each label that occurs, the candidate with the largest mean Dice; of equal ones the middle.

    Args:
        rows: The val rows, with their label.
        histograms: Score histograms of these rows, (N, 2, 256).
    """
    chosen = {}
    for label in rows.label.unique():
        scores = sweep(histograms[(rows.label == label).to_numpy()])
        best = np.flatnonzero(scores >= scores.max() - 1e-12)
        chosen[label] = float(CANDIDATES[best[len(best) // 2]])
    return chosen


def choose_presence_cut(present: np.ndarray, absent: np.ndarray) -> float:
    """Chooses the presence below which a mask is emptied: it parts best what is there from what is not.

    Best is the largest sum of both shares that are told right (Youden 1950, doi:10.1002/1097-0142(1950)3:1<32).

    Args:
        present: Presence, in [0, 1], of what was asked for and is there.
        absent: Presence of what was asked for and is not.

    Returns:
        The middle of the best gap between two values; 0, which empties nothing, where either side has no value.
    """
    if not len(present) or not len(absent):
        return 0.0
    values = np.unique(np.concatenate([present, absent]))
    cuts = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2])
    gains = [(present >= cut).mean() + (absent < cut).mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])
