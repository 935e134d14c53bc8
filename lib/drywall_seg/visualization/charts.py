"""Charts of a training, of many, and of an evaluated run: thresholds, precision and recall, calibration, presence."""

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drywall_seg.prompts import LABELS

# Okabe and Ito's colours, told apart with every kind of colour blindness; line styles tell them apart in grey too.
_LOOKS = [("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", ":"), ("#CC79A7", "-."), ("#56B4E9", "-")]
STYLES = dict(zip(LABELS, cycle(_LOOKS), strict=False))
MARKERS = "os^Dv"


def plot_history(history: pd.DataFrame) -> Figure:
    """Plots a training: loss by epoch, and mean IoU over val's images for each label, the best epoch marked."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    draw_history(*figure.subplots(1, 2), history)
    return figure


def draw_history(left: Axes, right: Axes, history: pd.DataFrame, steps: pd.DataFrame | None = None) -> None:
    """Draws `plot_history` into axes; with the columns step and loss of every step behind the epochs' means."""
    if steps is not None and len(history):
        epoch = steps.step * len(history) / len(steps)
        left.plot(epoch, steps.loss, color="#999999", linewidth=0.6, label="each step")
    left.plot(history.epoch, history.get("train_loss", []), color="black", marker="o", markersize=3, label="epoch")
    left.set(xlabel="epoch", ylabel="training loss")
    _legend(left)
    for (label, (color, line)), marker in zip(STYLES.items(), cycle(MARKERS), strict=False):
        if f"val_{label}_mean_iou" in history:
            values = history[f"val_{label}_mean_iou"]
            right.plot(history.epoch, values, line, color=color, marker=marker, label=label, markersize=4)
    if len(history):
        best = int(history.epoch[history.best.astype(bool)].max())  # the epoch that became the checkpoint
        right.axvline(best, color="grey", linewidth=1)
        right.set_title(f"best epoch: {best}", fontsize=10, loc="left")
        _legend(right)
    right.set(xlabel="epoch", ylabel="mean IoU over val images", ylim=(0, 1))
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)


def plot_sweep(sweep: pd.DataFrame, thresholds: dict[str, float]) -> Figure:
    """Plots mean Dice over images by threshold, on val and on test, those in use (by label) marked.

    The sweep has the columns split, label, threshold, mean_dice.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    titles = {"val": "val", "test": "test: only to show how much they matter"}
    for axis, split in zip(figure.subplots(1, 2, sharey=True), titles, strict=True):
        _draw_curves(axis, sweep[sweep.split == split], "threshold", "mean_dice", thresholds)
        axis.set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1))
        axis.set_title(titles[split], fontsize=10, loc="left")
    figure.axes[0].set_ylabel("mean Dice over images")
    return figure


def plot_precision_recall(curve: pd.DataFrame, thresholds: dict[str, float]) -> Figure:
    """Plots pooled precision against recall of the raw masks' pixels, the thresholds in use marked."""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axis = figure.subplots()
    _draw_curves(axis, curve, "recall", "precision", thresholds)
    axis.set(xlabel="pooled recall of pixels", ylabel="pooled precision of pixels", xlim=(0, 1), ylim=(0, 1))
    return figure


def plot_calibration(calibration: pd.DataFrame) -> Figure:
    """Plots how often pixels are target against how probable the model called them; on the diagonal it is right."""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
    _draw_curves(axis, calibration, "mean_prob", "target_share", marker="o", markersize=4)
    axis.set(xlabel="mean probability of the pixels", ylabel="share that is target", xlim=(0, 1), ylim=(0, 1))
    return figure


def plot_presence(roc: pd.DataFrame, cut: float) -> Figure:
    """Plots presence as a detector of what is there, the cut in use marked."""
    figure = Figure(figsize=(4.5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axis.plot(roc.false_positive_rate, roc.true_positive_rate, color="black", drawstyle="steps-post")
    above = roc[roc.cut >= cut].tail(1)
    axis.plot(above.false_positive_rate, above.true_positive_rate, "o", color="black", label=f"cut {cut:.2f}")
    axis.set(xlabel="share of what is not there that passes", ylabel="share of what is there that passes")
    axis.set(xlim=(-0.02, 1), ylim=(0, 1.02))
    _legend(axis)
    return figure


def _draw_curves(
    axis: Axes, table: pd.DataFrame, x: str, y: str, thresholds: dict[str, float] | None = None, **style: Any
) -> None:
    """Draws two columns against each other, a line for each label, with a dot at its threshold where some are given."""
    for label in (name for name in LABELS if (table.label == name).any()):
        rows, (color, line) = table[table.label == label], STYLES[label]
        axis.plot(rows[x], rows[y], line, color=color, label=label, **style)
        if thresholds is not None:
            used = rows[(rows.threshold - thresholds.get(label, -1)).abs() < 0.005]
            axis.plot(used[x], used[y], "o", color=color)
    _legend(axis)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=9)


def plot_ranking(table: pd.DataFrame) -> Figure:
    """Plots each setting's score on val, best first: a dot for each seed, a bar at their mean.

    The table has the columns setting and val_score, a row for each run; one that failed has no score.
    """
    means = table.groupby("setting").val_score.mean().sort_values(na_position="first")
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(means)), layout="constrained")
    axis = figure.subplots()
    for height, (setting, mean) in enumerate(means.items()):
        scores = table.val_score[table.setting == setting].dropna()
        axis.plot(scores, [height] * len(scores), "o", color="#0072B2", alpha=0.7)
        axis.plot([mean], [height], "|", color="black", markersize=16)
        if scores.empty:
            axis.text(0.01, height, "failed", transform=axis.get_yaxis_transform(), va="center")
    axis.set_yticks(range(len(means)), list(means.index))
    axis.set_xlabel("val: (mean IoU + mean Dice) / 2 of cracks and taping areas; a dot a seed, | their mean")
    return figure
