"""Thresholds and the presence cut, chosen on val and on nothing else."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from drywall_seg.evaluation.metrics import counts_at, dice, iou
from drywall_seg.inference.predict import THRESHOLDS_FILE
from drywall_seg.runs import read_json, write_json
from drywall_seg.settings import THRESHOLD_RULES

CANDIDATES = np.arange(1, 100) / 100


def require_val(splits: pd.Series) -> None:
    """Refuses to choose anything on rows that are not all of val.

    Raises:
        ValueError: Naming the other splits.
    """
    if others := sorted(set(splits) - {"val"}):
        raise ValueError(f"thresholds and cuts are chosen on val alone, not on {', '.join(map(str, others))}")


def sweep_table(rows: pd.DataFrame, histograms: np.ndarray) -> pd.DataFrame:
    """Scores the raw masks of each label at each of the 99 candidates; the model is not run again.

    Args:
        rows: With their label.
        histograms: Score histograms of these rows, (N, 2, 256).

    Returns:
        99 rows a label that occurs: label, threshold, and means over images: mean_iou, mean_dice, mean_recall (1
        where there is no target) and mean_false_alarm (share of the pixels that are not target but masked).
    """
    counts = np.stack([counts_at(histograms, t) for t in CANDIDATES], axis=1)  # (N, 99, 3)
    tp, fp, fn = np.moveaxis(counts, -1, 0)
    others = np.maximum(histograms[:, 0].sum(-1), 1)[:, None]
    scores = {
        "mean_iou": iou(tp, fp, fn),
        "mean_dice": dice(tp, fp, fn),
        "mean_recall": np.where(tp + fn == 0, 1.0, tp / np.maximum(tp + fn, 1)),
        "mean_false_alarm": fp / others,
    }
    labels = rows.label.to_numpy()
    tables = [
        pd.DataFrame(
            {"label": label, "threshold": CANDIDATES, **{n: s[labels == label].mean(0) for n, s in scores.items()}}
        )
        for label in pd.unique(labels)
    ]
    columns = ["label", "threshold", *scores]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def choose_thresholds(
    rows: pd.DataFrame, histograms: np.ndarray, rule: str = THRESHOLD_RULES[0], budget: float = 0.005
) -> dict[str, float]:
    """Chooses a threshold for each label that occurs.

    Args:
        rows: The val rows, with label and split.
        histograms: Score histograms of these rows, (N, 2, 256).
        rule: One of `config.THRESHOLD_RULES`. `max mean Dice`: the candidate with the largest, of equal ones the
            middle. `recall at a false-alarm budget`: the lowest candidate, whose recall is the largest, with a mean
            false alarm within the budget; the highest candidate where none is.
        budget: Of the second rule, as a share of the pixels that are not target.

    Raises:
        ValueError: If a row is not of val.
    """
    require_val(rows.split)
    chosen = {}
    for label, table in sweep_table(rows, histograms).groupby("label", sort=False):
        if rule == THRESHOLD_RULES[0]:
            fits = table.mean_dice >= table.mean_dice.max() - 1e-12
            kept = table.threshold[fits].to_numpy()
            chosen[label] = float(kept[len(kept) // 2])
        else:
            within = table.threshold[table.mean_false_alarm <= budget]
            chosen[label] = float(within.min() if len(within) else CANDIDATES[-1])
    return chosen


def choose_presence_cut(present: np.ndarray, absent: np.ndarray) -> float:
    """Chooses the presence below which a mask is emptied: it parts best what is there from what is not.

    Best is the largest sum of both shares that are told right (Youden 1950, doi:10.1002/1097-0142(1950)3:1<32).

    Args:
        present: Presence, in [0, 1], of what was asked for and is there; on val.
        absent: Presence of what was asked for and is not; on val.

    Returns:
        The middle of the best gap between two values; 0, which empties nothing, where either side has no value.
    """
    if not len(present) or not len(absent):
        return 0.0
    values = np.unique(np.concatenate([present, absent]))
    cuts = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2])
    gains = [(present >= cut).mean() + (absent < cut).mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])


def keep_threshold(checkpoint: Path, label: str, threshold: float, looking_at: str) -> str:
    """Writes a threshold that a person chose into a checkpoint, with the note that it was by hand, when and on what.

    Args:
        checkpoint: Its folder.
        label: Of the threshold.
        threshold: In [0, 1].
        looking_at: The split that the person looked at, or other words for it.

    Returns:
        How the checkpoint's thresholds were chosen, as reports say it from now on.
    """
    file = checkpoint / THRESHOLDS_FILE
    stored = read_json(file)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    by_hand = stored.get("by_hand", {}) | {label: {"threshold": threshold, "looking_at": looking_at, "time": now}}
    before = stored.get("chosen_before", stored.get("chosen", "nowhere"))
    hands = ", ".join(f"{name} {hand['threshold']:g} looking at {hand['looking_at']}" for name, hand in by_hand.items())
    stored["thresholds"] = stored.get("thresholds", {}) | {label: threshold}
    stored |= {"chosen_before": before, "by_hand": by_hand, "chosen": f"{before}; by hand: {hands}"}
    write_json(file, stored)
    return stored["chosen"]
