"""A log of predictions over time, beside the photos that the thresholds were chosen on."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import DAILY, HOURLY, MINUTELY, AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from drywall_seg.inference.monitor import FIELDS, HIGH, LEVELS, LOW, Reference, compare, labels_of

TITLES = {"area": "area, share of the photo"}
"""Of fields whose name does not say it."""
# Of Okabe and Ito's colours, told apart with every kind of colour blindness; strokes tell them apart in grey too.
REFERENCE_COLOR, LOG_COLOR, DOT_COLOR = "#0072B2", "#D55E00", "#666666"
TIMES = ((300, "%Y-%m"), (3, "%m-%d"), (1, "%m-%d %Hh"), (0.004, "%H:%M"), (0, "%H:%M:%S"))
"""How points of time are written on an axis that spans so many days."""
MOST_DOTS, BINS = 600, 120
"""Entries of a label that are drawn one by one; of more, the number of parts that are drawn."""


def plot_monitoring(log: pd.DataFrame, reference: Reference) -> Figure:
    """Plots each field of a log over time, a row of panels for each label (two rows for a single one).

    Behind the entries of `read_log` and their running median lie the 5 to 95 % and the median of `make_reference`, {}
    for none. Of many entries parts of equal number are drawn: their median, and their 5 to 95 %. What `compare` warns
    of is in the panels' titles.
    """
    labels = labels_of(log)
    if not labels:
        figure = Figure(figsize=(9, 0.6))
        figure.text(0.01, 0.4, "Nothing to show: no entry in the log.", fontsize=10)
        return figure
    shape = (2, 3) if len(labels) == 1 else (len(labels), len(FIELDS))
    figure = Figure(figsize=((11, 6.4) if len(labels) == 1 else (17, 0.9 + 2.7 * len(labels))), layout="constrained")
    panels = figure.subplots(*shape, sharex=True).reshape(len(labels), len(FIELDS))
    warnings = compare(log, reference).set_index(["label", "field"])["warning"]
    for label, row in zip(labels, panels, strict=True):
        entries = log[log["label"] == label].sort_values("time", kind="stable")
        for field, axis in zip(FIELDS, row, strict=True):
            quantiles = reference[label][field] if label in reference else None
            _draw(axis, entries["time"], entries[field].to_numpy(float), quantiles)
            _scale(axis, field)
            warning = warnings[label, field].replace(f"unlike the training photos: {field}", "unlike training:")
            title = "\n".join([TITLES.get(field, field), *filter(None, warning.split("; "))])  # panels are narrow
            axis.set_title(title, fontsize=9, loc="left", fontweight="bold" if warning else "normal")
            axis.tick_params(labelsize=8)
        row[0].set_ylabel(f"{label}, n = {len(entries):,}", fontsize=10, fontweight="bold")
    for axis in panels[-1]:
        _time_axis(axis, log["time"])
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (log["time"].min(), log["time"].max()))
    figure.supxlabel(f"time (UTC), {first} to {last}", fontsize=9)
    handles = [pair for axis in panels.flat for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    drawn = {label: handle for handle, label in handles}  # labels may differ in what is drawn of them
    figure.legend(list(drawn.values()), list(drawn), loc="outside upper left", ncols=4, fontsize=9, frameon=False)
    return figure


def _draw(axis: Axes, times: pd.Series, values: np.ndarray, quantiles: list[float] | None) -> None:
    if quantiles:
        band = {"color": REFERENCE_COLOR, "alpha": 0.15, "linewidth": 0, "label": "5 to 95 % of the validation photos"}
        axis.axhspan(quantiles[LOW], quantiles[HIGH], **band)
        style = {"color": REFERENCE_COLOR, "linestyle": "--", "linewidth": 1.2}
        axis.axhline(quantiles[len(LEVELS) // 2], **style, label="their median")
    line = {"color": LOG_COLOR, "linewidth": 1.6}
    if len(values) <= MOST_DOTS:
        axis.plot(times, values, "o", color=DOT_COLOR, markersize=3, alpha=0.6, label="logged")
        axis.plot(times, running_median(values), **line, label="running median of the log")
        return
    middles, low, median, high = in_parts(times, values)
    axis.fill_between(middles, low, high, color=DOT_COLOR, alpha=0.35, linewidth=0, label="5 to 95 % of the log")
    axis.plot(middles, median, **line, label="running median of the log")


def running_median(values: np.ndarray) -> np.ndarray:
    """Returns the median of a twentieth of the values, at least 5, around each."""
    window = max(5, len(values) // 20)
    return pd.Series(values).rolling(window, center=True, min_periods=1).median().to_numpy()


def in_parts(times: pd.Series, values: np.ndarray) -> tuple[pd.Series, np.ndarray, np.ndarray, np.ndarray]:
    """Cuts values (N), in the order of time, into `BINS` parts of equal number, so that none is empty or of few.

    Returns:
        The parts' median times, and their 5 %, 50 % and 95 % quantiles.
    """
    part = np.arange(len(values)) * BINS // len(values)
    quantiles = pd.Series(values).groupby(part).quantile([0.05, 0.5, 0.95]).unstack()
    middles = times.groupby(part).median()
    return middles, *quantiles.to_numpy().T


def _scale(axis: Axes, field: str) -> None:
    if field in ("presence", "doubt", "brightness"):
        axis.set_ylim(-0.03, 1.03)
    elif field == "sharpness":  # it spans two decades
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.008), max(high, 1.1))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_ylim(0, axis.get_ylim()[1] * 1.05)


def _time_axis(axis: Axes, times: pd.Series) -> None:
    first, last = times.min(), times.max()
    pad = max((last - first) * 0.03, pd.Timedelta(seconds=30))  # one entry alone has no span
    axis.set_xlim(first - pad, last + pad)
    span = (last - first + 2 * pad) / pd.Timedelta(days=1)
    locator = AutoDateLocator(minticks=2, maxticks=4)
    locator.intervald |= {MINUTELY: [1, 2, 3, 5, 10, 15, 30], HOURLY: [1, 2, 3, 6, 12, 24]}  # its own may give but one
    locator.maxticks |= {HOURLY: 5, DAILY: 5}
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(DateFormatter(next(text for days, text in TIMES if span >= days)))
