"""How sure a mean is: bootstrap over photographs, since the copies of one photograph are not independent."""

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: np.ndarray, photo_ids: np.ndarray, n_draws: int = 2000, seed: int = 42
) -> list[float] | None:
    """Returns the 95 % interval of a mean over images, drawing photographs with all their images.

    The percentile bootstrap over clusters (Efron & Tibshirani 1993, chapters 8 and 13), of values (N,), one an image,
    and the photograph of each, (N,).

    Returns:
        Lower and upper bound; None for fewer than two photographs, which say nothing of the others.
    """
    photos, owner = np.unique(np.asarray(photo_ids), return_inverse=True)
    if len(photos) < 2:
        return None
    sums = np.bincount(owner, weights=np.asarray(values, float))
    sizes = np.bincount(owner)
    drawn = np.random.default_rng(seed).integers(0, len(photos), (n_draws, len(photos)))
    low, high = np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    return [float(low), float(high)]


def interval_text(bounds: Sequence[float] | None) -> str:
    """Writes an interval as a reader wants it, an empty text for none.

    >>> interval_text((0.25, 0.75)), interval_text(None)
    ('0.250 to 0.750', '')
    """
    return " to ".join(f"{bound:.3f}" for bound in bounds or ())
