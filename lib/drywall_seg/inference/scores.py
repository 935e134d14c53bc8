"""From logits to what is said of a photo: probabilities, levels, presence, doubt."""

import math

import numpy as np

FIELDS = ("presence", "area", "doubt", "brightness", "sharpness", "megapixels")
"""What monitoring compares, by so many quantiles of each."""
N_LEVELS = 21
MARGIN = 0.1
"""Doubt asks what another threshold would give: one lower, and one higher, by this."""


def to_levels(probs: np.ndarray) -> np.ndarray:
    """Rounds probabilities in [0, 1] to uint8 levels, round(255 p)."""
    scaled = probs * np.float32(255)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def first_level(threshold: float) -> int:
    """Returns the lowest level that a threshold lets through, ceil(255 t): the raw mask is level >= this, everywhere.

    >>> first_level(0.4), first_level(0.5)
    (102, 128)
    """
    return math.ceil(255 * threshold)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities in [0, 1], float32."""
    probs = np.clip(logits, -80, 80, dtype=np.float32)
    np.exp(np.negative(probs, out=probs), out=probs)  # in place: new memory costs more than the arithmetic
    probs += 1
    return np.reciprocal(probs, out=probs)


def presence_of(logits: np.ndarray) -> float:
    """Returns the mean probability of the largest thousandth of logits (N)."""
    count = max(1, logits.size // 1000)
    largest = np.maximum.reduceat(logits, np.arange(0, logits.size, 100))  # of each run of 100
    if len(largest) > count:  # that many runs reach `least`, so that none of the largest lies below it
        least = np.partition(largest, -count)[-count]
        logits = logits[logits >= least]
    return float(sigmoid(np.partition(logits, -count)[-count:]).mean())


def count_around(levels: np.ndarray, threshold: float) -> np.ndarray:
    """Counts the pixels of the masks at thresholds `MARGIN` lower and `MARGIN` higher, int64 (2)."""
    bounds = max(1, first_level(threshold - MARGIN)), min(255, first_level(threshold + MARGIN))
    return np.array([np.count_nonzero(levels >= bound) for bound in bounds])


def doubt_of(counts: np.ndarray, presence: float, cut: float) -> float:
    """Returns how much of a mask hangs on where the threshold and the presence cut lie.

    It is 1 - IoU of the masks with both `MARGIN` lower and both `MARGIN` higher, of which one lies in the other.

    Args:
        counts: The pixels of these two masks, lower first, as `count_around` gives them.
        presence: In [0, 1].
        cut: The presence below which a mask is emptied; 0 empties none.

    Returns:
        In [0, 1]; 0 where both masks are empty.
    """
    low, high = counts
    if presence < cut - MARGIN or low == 0:
        return 0.0
    return 1.0 if cut and presence < min(cut + MARGIN, (1 + cut) / 2) else float(1 - high / low)
