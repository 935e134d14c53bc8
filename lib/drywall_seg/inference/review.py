"""Is it worth a look: one score for a finding or a photo, and its reasons in words."""

from typing import Any

import numpy as np

from drywall_seg.inference.measure import RESOLVABLE

LOOK = 0.15
"""Review score from which a person should look. Of the compact model's masks on val, 59 of 150 crack photos (mean Dice
.53, the others .68) and 20 of 116 joint photos (.73, .85) reach it."""
DISAGREEMENT_WEIGHT = 0.5
"""Masks of a photo and of its mirror image differ about twice as much as those of two thresholds do."""
UNMEASURABLE = 0.25
"""Review score of a crack whose width cannot be told."""


def review_score(doubt: float, disagreement: float, unmeasurable: bool) -> float:
    """Returns how much something is worth a person's look, in [0, 1]: the largest of three reasons for it.

    Args:
        doubt: In [0, 1]. On val it tells best where a mask is wrong: Spearman's correlation with Dice is -.49 for
            cracks and -.70 for taping areas, against -.41 and -.48 of the disagreement; their sum or mean tells less.
        disagreement: In [0, 1] between the masks of the photo and of its mirror image; NaN where it is not known. It
            counts by half, so that it speaks where it is far more than such a doubt has beside it.
        unmeasurable: There is a crack, but its width cannot be told.
    """
    return float(np.nanmax([doubt, DISAGREEMENT_WEIGHT * disagreement, UNMEASURABLE * unmeasurable]))


def reasons(prompt: str, row: dict[str, Any]) -> list[str]:
    """Says in words why a photo's `row` of totals has a review score of `LOOK` or more; nothing below."""
    said = []
    if row["doubt"] == 1:
        said.append("the model is not sure that there is any" + ("" if row["n"] else "; nothing is marked"))
    elif row["doubt"] >= LOOK:
        said.append(f"{row['doubt']:.0%} of the marked area hangs on the model's threshold")
    if DISAGREEMENT_WEIGHT * row["disagreement"] >= LOOK:
        said.append(f"{row['disagreement']:.0%} is marked otherwise in the mirrored photo")
    if row["unmeasurable"]:
        said.append(f"most of it is under {RESOLVABLE:.0f} pixels wide or too short for a width: take a closer photo")
    return [f"{prompt}: {', '.join(said)}"] if said else []
