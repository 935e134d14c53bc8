"""What there is to say of one photo: each crack and joint with its size, its class, and whether it is worth a look."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from drywall_seg.inference.measure import BRE_251, Scale, components, measure, width_class
from drywall_seg.inference.predict import Prediction, Predictor
from drywall_seg.inference.review import review_score
from drywall_seg.inference.scores import MARGIN, first_level, to_levels

PIXELS = {"3 to 6 px": 6.0, "6 to 12 px": 12.0, "12 to 24 px": 24.0, "over 24 px": np.inf}
"""Classes of a crack where no scale is known: they compare the cracks of alike photos, and say nothing of the wall."""
UNRESOLVED, TOO_SHORT = "under 3 px: width not resolvable", "too short for a width"

SHOWN = 6
"""Findings of a sentence that a photo's picture numbers; the others are small ones."""

FINDINGS = (
    "number label prompt severity severity_p95 unit length total_length width_median width_p95 width_max area where "
    "x y x0 y0 x1 y1 orientation n_runs runs resolvable doubt disagreement review component"
).split()


def inspect_photo(
    predictor: Predictor,
    photo: np.ndarray,
    prompts: list[str],
    scale: Scale | None = None,
    limits: dict[str, float] = BRE_251,
    flips: bool = True,
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Finds, measures and doubts what the sentences ask for on one photo, uint8 (H, W, 3).

    Without a scale to millimetres it measures in pixels, and `PIXELS` stand for `limits`, the classes of `width_class`.
    With `flips` it predicts the mirrored photo too, and compares: it takes twice the time.

    Returns:
        The findings, a row for each component of each mask, with `FINDINGS`, by number: within a sentence from the
        severest and longest on, the first `SHOWN` of all sentences before the others. Lengths are in `unit`. The
        totals of each sentence, as in `totals_of`. And the masks, uint8 (H, W), {0, 255}.
    """
    answers = predictor.predict(photo, prompts)
    mirrored: list[np.ndarray | None] = [None] * len(prompts)
    if flips:
        again = predictor.predict(np.ascontiguousarray(photo[:, ::-1]), prompts, with_probs=False)
        mirrored = [answer.mask[:, ::-1] for answer in again]
    tables, totals = [], {}
    for answer, other in zip(answers, mirrored, strict=True):
        label = predictor.label_for(answer.prompt)
        table = find(answer, other, label, scale, limits)
        totals[answer.prompt] = totals_of(table, answer, other, label, scale)
        tables.append(table)
    findings = pd.concat([table for table in tables if len(table)] or tables[:1])  # by place within the sentence
    findings = findings.iloc[np.argsort(findings.index >= SHOWN, kind="stable")].reset_index(drop=True)
    return findings.assign(number=range(1, len(findings) + 1)), totals, {a.prompt: a.mask for a in answers}


def shown(findings: pd.DataFrame) -> pd.DataFrame:
    """Returns of one photo's findings the first `SHOWN` of each sentence."""
    return findings[findings.groupby("prompt", sort=False).cumcount() < SHOWN]


def find(
    answer: Prediction, mirrored: np.ndarray | None, label: str, scale: Scale | None, limits: dict[str, float]
) -> pd.DataFrame:
    """Returns the findings of one mask, the severest and longest first; `number` is still to be given.

    Only a crack has a severity. `mirrored` is the mask of the mirrored photo, turned back; without there is no
    disagreement.
    """
    table = measure(answer.mask, scale)
    table = table.assign(**_doubts(answer, mirrored), number=0, label=label, prompt=answer.prompt)
    table["unit"] = "mm" if scale else "px"
    height, width = answer.mask.shape
    table["where"] = [_where(x / width, y / height) for x, y in zip(table.x, table.y, strict=True)]
    table["n_runs"] = table.runs.map(len)
    classes = limits if scale else PIXELS
    for name, column in (("severity", "width_median"), ("severity_p95", "width_p95")):
        sizes = zip(table[column], table.resolvable, strict=True)
        table[name] = [_class_of(*size, classes) if label == "crack" else "" for size in sizes]
    unmeasurable = (label == "crack") & ~table.resolvable.astype(bool)
    table["review"] = list(map(review_score, table.doubt, table.disagreement, unmeasurable))
    order = table.assign(rank=table.severity.map(lambda name: rank_of(name, limits)))
    return order.sort_values(["rank", "total_length", "area"], ascending=False, ignore_index=True)[FINDINGS]


def _doubts(answer: Prediction, mirrored: np.ndarray | None) -> dict[str, list[float]]:
    """Returns of each component the share that a higher threshold would lose, and that the mirrored mask lacks."""
    labelled = components(answer.mask)
    kept = to_levels(answer.probs) >= min(255, first_level(answer.threshold + MARGIN))
    doubts, disagreements = [], []
    for number, window in enumerate(find_objects(labelled), 1):
        inside = labelled[window] == number
        doubts.append(1 - float(kept[window][inside].mean()))
        disagreements.append(np.nan if mirrored is None else 1 - float((mirrored[window][inside] > 0).mean()))
    return {"doubt": doubts, "disagreement": disagreements}


def _class_of(width: float, resolvable: bool, limits: dict[str, float]) -> str:
    if np.isnan(width):
        return TOO_SHORT
    return width_class(width, limits) if resolvable else UNRESOLVED


def rank_of(severity: str, limits: dict[str, float]) -> int:
    """Returns a number that rises with severity: -2 for none, as of joints, -1 where there is no width."""
    order = ["", TOO_SHORT, UNRESOLVED, *(limits if severity in limits else PIXELS)]
    return order.index(severity) - 2


def _where(x: float, y: float) -> str:
    """Says in which of a photo's nine parts a point lies, from its place in [0, 1] from the left and from the top."""
    words = ("top", "", "bottom")[min(2, int(3 * y))], ("left", "", "right")[min(2, int(3 * x))]
    return " ".join(filter(None, words)) or "middle"


def totals_of(
    table: pd.DataFrame, answer: Prediction, mirrored: np.ndarray | None, label: str, scale: Scale | None
) -> dict[str, Any]:
    """Adds up one sentence's findings on one photo.

    Returns:
        What the model said, and of all findings: `n`, `length` of all branches together, `n_runs` (straight lines),
        `area`, `area_share` of the photo, `density` (length per area: px per px2, or with a scale m per m2; NaN where
        the horizon is in the picture), the severest class and the largest median width that can be told, and `review`.
    """
    height, width = answer.mask.shape
    whole = photo_area((height, width), scale)
    area, length = float(table.area.sum()), float(table.total_length.sum(skipna=False))
    vague = float(table.total_length[~table.resolvable.astype(bool)].sum())
    unmeasurable = label == "crack" and len(table) > 0 and not vague <= length / 2  # most of it, or none is known
    disagreement = np.nan if mirrored is None else _disagreement(answer.mask > 0, mirrored > 0)
    return {
        "label": label,
        "width_px": width,
        "height_px": height,
        "presence": answer.presence,
        "threshold": answer.threshold,
        "n": len(table),
        "n_runs": int(table.n_runs.sum()),
        "unit": "mm" if scale else "px",
        "length": length,
        "area": area,
        "area_share": area / whole,
        "density": length / whole * (1000 if scale else 1),
        "severity": table.severity.iloc[0] if len(table) else "",
        "widest": table.width_median[table.resolvable.astype(bool)].max(),
        "doubt": answer.doubt,
        "disagreement": disagreement,
        "unmeasurable": unmeasurable,
        "review": review_score(answer.doubt, disagreement, unmeasurable),
    }


def photo_area(size_hw: tuple[int, int], scale: Scale | None) -> float:
    """Returns what a photo shows, in px2 or mm2; NaN where the horizon is in the picture."""
    height, width = size_hw
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float) - 0.5
    x, y = (scale(corners) if scale else corners).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _disagreement(mask: np.ndarray, other: np.ndarray) -> float:
    union = np.count_nonzero(mask | other)
    return 1 - np.count_nonzero(mask & other) / union if union else 0.0
