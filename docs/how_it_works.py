"""Draws the picture of docs/how_it_works.md: `python docs/how_it_works.py docs/how_it_works.png`."""

import hashlib
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

# Left edge, top, width, height in parts of the picture; a test holds rooms and modules to the library.
ROOMS = {
    "data": (20, 12, 60, "coco, overlays, splits, manifest"),
    "training": (20, 30, 60, "loop, fit, resume     models: compact, clipseg, sam3"),
    "inference": (20, 48, 60, "predict, large, postprocess, onnx_backend"),
    "evaluation": (20, 61, 37, "collect, metrics, thresholds"),
    "visualization": (20, 79, 37, "report, panels, gallery, viewer"),
}
FILES = {
    "exports": (20, 2.5, 29, "your exports\n<data_root>/, only read"),
    "annotations": (51, 2.5, 29, "overlays\ndata/annotations/*.coco.json"),
    "manifest": (20, 21, 60, "data/processed/<data>/\nmanifest.csv, manifest.json, masks/"),
    "checkpoint": (20, 39, 60, "outputs/<run>/\nconfig.json, history.csv, checkpoint/ with thresholds.json, from val"),
    "photos": (83.5, 48, 12, "your photos"),
    "scores": (20, 70, 37, "outputs/<run>/\nmetrics.json, tables/, masks/, report.html"),
    "masks": (60.5, 61, 35, "outputs/<run>/predictions/, or --out\nmasks, predictions.csv, report.html"),
    "looks": (20, 88, 37, "outputs/<run>/\npanels/, gallery.html"),
    "corrections": (60.5, 88, 35, "corrections-<time>.json\nwhat people judged and painted"),
}
COMMANDS = {
    "data": "01_prepare",
    "training": "02_train\ntrain, sweep",
    "inference": "05_predict_photos\npredict, inspect",
    "evaluation": "03_evaluate\nreport",
    "visualization": "04_visualize_panels\ngallery",
}
HEIGHT = 6.5
ROOM, FILE, INK, QUIET = "#CFE6F5", "#FFFFFF", "#1A1A1A", "#555555"
EDGE, ARROW = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by every kind of eye


def draw() -> plt.Figure:
    """Draws rooms, the files between them, and the way of the data."""
    figure, axes = plt.subplots(figsize=(8.8, 8.4), facecolor="white")
    axes.set(xlim=(0, 100), ylim=(97, 1))
    axes.set_axis_off()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    for name, (left, top, width, modules) in ROOMS.items():
        box(axes, left, top, width, ROOM, EDGE, 1.6)
        axes.text(left + 1.5, top + 2.4, f"{name}/", weight="bold", size=11, va="center", color=INK)
        axes.text(left + 1.5, top + 4.9, modules, size=8.5, va="center", color=INK)
        axes.text(left - 4, top + HEIGHT / 2, COMMANDS[name], size=9, ha="right", va="center", color=INK)
    for left, top, width, text in FILES.values():
        box(axes, left, top, width, FILE, "#777777", 1)
        axes.text(left + width / 2, top + HEIGHT / 2, text, size=8.5, ha="center", va="center", color=INK)
    for x, top, bottom in (
        (34.5, 9, 12), (65.5, 9, 12), (50, 18.5, 21), (50, 27.5, 30), (50, 36.5, 39), (50, 45.5, 48),
        (38.5, 54.5, 61), (38.5, 67.5, 70), (38.5, 76.5, 79), (38.5, 85.5, 88), (72, 54.5, 61),
    ):  # fmt: skip
        arrow(axes, (x, top), (x, bottom))
    arrow(axes, (83.5, 51.25), (80, 51.25))
    arrow(axes, (57, 91.25), (60.5, 91.25))
    way(axes, [(20, 24.25), (17.5, 24.25), (17.5, 64.25), (20, 64.25)])
    axes.text(16.8, 42.25, "val and test", size=8.5, ha="right", va="center", color=QUIET)
    way(axes, [(95.5, 91.25), (98.3, 91.25), (98.3, 5.75), (80, 5.75)])
    axes.text(97.5, 30, "import-corrections", size=8.5, rotation=270, ha="right", va="center", color=QUIET)
    return figure


def box(axes: plt.Axes, left: float, top: float, width: float, face: str, edge: str, line: float) -> None:
    """Draws a box with round corners."""
    style = "round,pad=0,rounding_size=0.9"
    axes.add_patch(FancyBboxPatch((left, top), width, HEIGHT, style, facecolor=face, edgecolor=edge, linewidth=line))


def arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws an arrow."""
    shape = {"arrowstyle": "-|>", "color": ARROW, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=shape)


def way(axes: plt.Axes, points: list[tuple[float, float]]) -> None:
    """Draws a line with corners that ends in an arrow."""
    axes.plot(*zip(*points[:-1], strict=True), color=ARROW, linewidth=1.6, solid_joinstyle="round")
    arrow(axes, points[-2], points[-1])


if __name__ == "__main__":
    about = {"Software": None, "Source": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}  # a test compares
    draw().savefig(sys.argv[1], dpi=160, facecolor="white", metadata=about)
