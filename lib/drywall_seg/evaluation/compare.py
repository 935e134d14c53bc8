"""One run against another, on the images that both were scored on."""

import numpy as np
import pandas as pd

from drywall_seg.evaluation.intervals import bootstrap_interval
from drywall_seg.prompts import LABELS

NO_DIFFERENCE = "no difference shown"
COLUMNS = "label n_images n_photographs mean_ours mean_theirs mean_difference low high verdict".split()


def compare_runs(ours: pd.DataFrame, theirs: pd.DataFrame, score: str = "iou") -> pd.DataFrame:
    """Returns the paired difference of two runs' scores, image by image, with its interval over photographs.

    Args:
        ours: A run's per_image table: image_id, label, photo_id, tp, fn and the score.
        theirs: The other run's.
        score: Name of the column; images without it are left out.

    Returns:
        One row for each label that both have: label, n_images, n_photographs, mean_ours, mean_theirs,
        mean_difference, low, high (95 %, NaN for one photograph) and verdict: ours or theirs is better, or that no
        difference is shown, where the interval holds 0 or there is none.

    Raises:
        ValueError: If an image has another target in one run than in the other: then the truths differ.
    """
    columns = ["image_id", "label", "photo_id", "tp", "fn", score]
    pairs = ours[columns].merge(theirs[columns], on=["image_id", "label"], suffixes=("", "_theirs"))
    pairs = pairs[pairs[score].notna() & pairs[f"{score}_theirs"].notna()]
    differs = pairs.tp + pairs.fn != pairs.tp_theirs + pairs.fn_theirs
    if differs.any():
        first = pairs[differs].iloc[0]
        raise ValueError(f"{first.image_id}, {first.label}: the two runs were scored against different targets")
    results = []
    for label in (name for name in LABELS if (pairs.label == name).any()):
        rows = pairs[pairs.label == label]
        differences = (rows[score] - rows[f"{score}_theirs"]).to_numpy()
        low, high = bootstrap_interval(differences, rows.photo_id.to_numpy()) or (np.nan, np.nan)
        result = {"label": label, "n_images": len(rows), "n_photographs": rows.photo_id.nunique()}
        result |= {"mean_ours": rows[score].mean(), "mean_theirs": rows[f"{score}_theirs"].mean()}
        verdict = "ours is better" if low > 0 else "theirs is better" if high < 0 else NO_DIFFERENCE
        results.append(result | {"mean_difference": differences.mean(), "low": low, "high": high, "verdict": verdict})
    return pd.DataFrame(results, columns=COLUMNS)
