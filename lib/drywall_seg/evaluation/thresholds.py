"""Thresholds, chosen on val."""

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
