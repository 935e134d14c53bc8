"""Curves: precision and recall, calibration, and presence as a detector."""

import numpy as np
import pandas as pd

from drywall_seg.evaluation.metrics import counts_at
from drywall_seg.evaluation.thresholds import CANDIDATES

BINS = 10


def precision_recall(rows: pd.DataFrame, histograms: np.ndarray) -> pd.DataFrame:
    """Returns pooled precision and recall of the raw masks' pixels, from rows' score histograms (N, 2, 256).

    Returns:
        For each label and each of the 99 candidates: label, threshold, precision (1 where nothing is predicted),
        recall (1 without target).
    """
    results = []
    for label, pooled in _pooled(rows, histograms).items():
        for threshold in CANDIDATES:
            tp, fp, fn = counts_at(pooled, threshold)
            precision, recall = (tp / whole if whole else 1.0 for whole in (tp + fp, tp + fn))
            results.append([label, threshold, precision, recall])
    return pd.DataFrame(results, columns=["label", "threshold", "precision", "recall"])


def calibration(rows: pd.DataFrame, histograms: np.ndarray) -> pd.DataFrame:
    """Returns how often pixels of about one probability are target, from rows' score histograms (N, 2, 256).

    Returns:
        One row for each label and bin that has pixels: label, bin, n_pixels, mean_prob, target_share.
    """
    bins = np.minimum(np.arange(256) * BINS // 255, BINS - 1)
    results = []
    for label, pooled in _pooled(rows, histograms).items():
        totals, targets = pooled.sum(0), pooled[1]
        for number in range(BINS):
            inside = bins == number
            if n_pixels := int(totals[inside].sum()):
                mean_prob = (totals[inside] * np.arange(256)[inside]).sum() / 255 / n_pixels
                share = targets[inside].sum() / n_pixels
                results.append([label, number, n_pixels, float(mean_prob), float(share)])
    return pd.DataFrame(results, columns=["label", "bin", "n_pixels", "mean_prob", "target_share"])


def expected_calibration_error(table: pd.DataFrame) -> dict[str, float]:
    """Returns for each label the mean of |target share - mean probability|, weighted by the bins' pixels.

    Naeini, Cooper & Hauskrecht 2015 (doi:10.1609/aaai.v29i1.9602). Most pixels are plain wall, told so: it is small.
    """
    gaps = (table.target_share - table.mean_prob).abs() * table.n_pixels
    groups = gaps.groupby(table.label, sort=False).sum() / table.groupby("label", sort=False).n_pixels.sum()
    return {label: float(value) for label, value in groups.items()}


def presence_roc(present: np.ndarray, absent: np.ndarray) -> tuple[pd.DataFrame, float | None]:
    """Returns presence as a detector of what is there.

    Args:
        present: Presence of what was asked for and is there, in [0, 1].
        absent: Presence of what was asked for and is not.

    Returns:
        Columns cut, true_positive_rate, false_positive_rate, from the highest cut to the lowest; and the area under the
        curve, the share of pairs that presence orders rightly. Without one of the sides no rows and None.
    """
    columns = ["cut", "true_positive_rate", "false_positive_rate"]
    if not len(present) or not len(absent):
        return pd.DataFrame(columns=columns), None
    cuts = np.concatenate([[np.inf], np.unique(np.concatenate([present, absent]))[::-1]])
    rates = [[cut, (present >= cut).mean(), (absent >= cut).mean()] for cut in cuts]
    roc = pd.DataFrame(rates, columns=columns)
    return roc, float(np.trapezoid(roc.true_positive_rate, roc.false_positive_rate))


def _pooled(rows: pd.DataFrame, histograms: np.ndarray) -> dict[str, np.ndarray]:
    labels = rows.label.to_numpy()
    return {label: histograms[labels == label].sum(0) for label in pd.unique(labels)}
