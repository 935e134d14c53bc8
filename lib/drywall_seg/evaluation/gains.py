"""What post-processing gains over the raw masks, and what boxes would."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.collect import KEPT, predict_rows
from drywall_seg.evaluation.intervals import bootstrap_interval
from drywall_seg.evaluation.metrics import counts_at, dice, iou, mask_counts, score_histogram, score_rows
from drywall_seg.inference.postprocess import PostProcessing, postprocess
from drywall_seg.inference.predict import Prediction, Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.prompts import LABELS

BOX_LABEL = "taping_area"
"""Whose truth is boxes: only there is it of interest whether boxes match it better."""
BOXES = {"upright_box": "axis-aligned", "turned_box": "turned"}
"""Kinds of boxes, by the beginning of their columns' names."""
BOX_SCORES = [f"{kind}_{score}" for kind in BOXES for score in ("iou", "dice")]
DELIVERED_SCORES = ["threshold", "presence", "doubt", "tp", "fp", "fn", *BOX_SCORES]

CHOSEN, NOTHING = "chosen", "none chosen"
COLUMNS = "split label what settings n_images n_photographs mean_dice_raw mean_dice gain low high".split()
COLUMNS += ["mean_iou_raw", "mean_iou"]
WORDS = {
    "opening": "opened by {} of the side",
    "closing": "closed by {} of the side",
    "join_gap": "lines joined across {} of the side",
    "hole_area": "holes filled up to {} of the photo",
    "min_area": "parts under {} of the photo removed",
    "boxes": "each part its box, {}",
}


def score_delivered(label: str, prediction: Prediction, target: np.ndarray) -> dict[str, Any]:
    """Scores a delivered mask against its target (H, W): `DELIVERED_SCORES`, those of boxes for a `BOX_LABEL` alone."""
    tp, fp, fn = mask_counts(prediction.mask, target)
    scores = {name: getattr(prediction, name) for name in ("threshold", "presence", "doubt")}
    scores |= {"tp": tp, "fp": fp, "fn": fn}
    for kind, boxes in BOXES.items() if label == BOX_LABEL else ():
        counts = mask_counts(postprocess(prediction.mask, PostProcessing(boxes=boxes)), target)
        scores |= {f"{kind}_iou": float(iou(*counts)), f"{kind}_dice": float(dice(*counts))}
    return scores


def collect_delivered(predictor: Predictor, manifest: Manifest, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Runs the model once over rows and scores what it delivers.

    Returns:
        A table with the columns `collect.KEPT`, `DELIVERED_SCORES`, iou and dice, and the score histograms of its
        rows, int64 (N, 2, 256), from which all figures of the raw masks follow.
    """
    kept, histograms = [], []
    for row, prediction, target in predict_rows(predictor, manifest, rows):
        histograms.append(score_histogram(to_levels(prediction.probs), target))
        kept.append({name: getattr(row, name) for name in KEPT} | score_delivered(row.label, prediction, target))
    table = score_rows(pd.DataFrame(kept, columns=[*KEPT, *DELIVERED_SCORES]))
    return table, np.array(histograms, np.int64).reshape(-1, 2, 256)


def gain_table(predictor: Predictor, scored: dict[str, tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    """Compares delivered masks with the raw ones, which are emptied below the same presence cut.

    Args:
        predictor: Which delivered them.
        scored: By split, tables and histograms as `collect_delivered` returns them.

    Returns:
        A row for each split and label: split, label, what (`CHOSEN`: what the predictor does), settings (in words,
        `NOTHING` where it does nothing), n_images, n_photographs, the means over images mean_dice_raw, mean_dice,
        gain (in mean Dice; 0 where nothing is done), low and high (its 95 % interval, paired, over photographs; NaN
        for one photograph), mean_iou_raw and mean_iou. For a `BOX_LABEL` one more for each kind of boxes.
    """
    results = []
    for split, (table, histograms) in scored.items():
        for label in (name for name in LABELS if (table.label == name).any()):
            mine = (table.label == label).to_numpy()
            rows, steps = table[mine], predictor.postprocessing[label]
            raw = raw_scores(rows, histograms[mine], predictor.presence_cut)
            about = {"split": split, "label": label, "n_images": len(rows), "n_photographs": rows.photo_id.nunique()}
            results.append(about | {"what": CHOSEN, "settings": describe(steps)} | _gain(raw, rows, ""))
            for kind, boxes in BOXES.items() if label == BOX_LABEL else ():
                shown = {"what": f"boxes {boxes}", "settings": describe(replace(steps, boxes=boxes))}
                results.append(about | shown | _gain(raw, rows, f"{kind}_"))
    return pd.DataFrame(results, columns=COLUMNS)


def raw_scores(rows: pd.DataFrame, histograms: np.ndarray, presence_cut: float) -> pd.DataFrame:
    """Returns rows with tp, fp, fn, iou and dice of their raw masks, which are empty below the presence cut.

    The masks follow from the rows' threshold, presence and score histograms (N, 2, 256).
    """
    counts = [counts_at(h, t) for h, t in zip(histograms, rows.threshold, strict=True)]
    tp, fp, fn = np.array(counts, np.int64).reshape(-1, 3).T
    kept = (rows.presence >= presence_cut).to_numpy()
    return score_rows(rows.assign(tp=tp * kept, fp=fp * kept, fn=fn + tp * ~kept))


def _gain(raw: pd.DataFrame, rows: pd.DataFrame, kind: str) -> dict[str, float]:
    gains = (rows[f"{kind}dice"] - raw.dice).to_numpy()
    low, high = bootstrap_interval(gains, rows.photo_id.to_numpy()) or (np.nan, np.nan)
    scores = {"gain": gains.mean(), "low": low, "high": high}
    for score in ("dice", "iou"):
        scores |= {f"mean_{score}_raw": raw[score].mean(), f"mean_{score}": rows[f"{kind}{score}"].mean()}
    return scores


def describe(steps: PostProcessing) -> str:
    """Says in words what is done, in its order.

    >>> describe(PostProcessing(closing=0.0032, min_area=0.01)), describe(PostProcessing())
    ('closed by 0.32 % of the side, parts under 1 % of the photo removed', 'none chosen')
    """
    done = [(WORDS[field.name], getattr(steps, field.name)) for field in fields(steps)]
    words = [text.format(value if isinstance(value, str) else f"{100 * value:g} %") for text, value in done if value]
    return ", ".join(words) or NOTHING


def describe_gains(table: pd.DataFrame) -> str:
    """Says in plain words what a `gain_table` shows, on test if it has such rows."""
    rows = table[table.split == ("test" if "test" in set(table.split) else "val")]
    done = rows[(rows.what == CHOSEN) & (rows.settings != NOTHING)]
    parts = [f"{row.label} is {row.settings} (mean Dice {_change(row)})" for row in done.itertuples()]
    text = "; ".join(parts) or "nothing is done: no step is known to gain more on val than chance would"
    boxes = [f"{row.what.removeprefix('boxes ')} {_change(row)}" for row in rows[rows.what != CHOSEN].itertuples()]
    shown = f" Boxes, never chosen, would change a taping area's mean Dice: {'; '.join(boxes)}." if boxes else ""
    return f"Before delivery {text}.{shown} Gains are over the raw masks, which the presence cut has emptied too."


def _change(row: Any) -> str:
    interval = f", 95 % interval {row.low:+.3f} to {row.high:+.3f}" if row.low == row.low else ""
    return f"{row.gain:+.3f}{interval}"
