"""Pictures: Original | Ground truth | Prediction, and the curves of a training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageFilter

from drywall_seg.config import run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.images import Letterbox, read_image, read_mask
from drywall_seg.inference.predict import Prediction
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import read_json, whole_file
from drywall_seg.settings import RunConfig

# Two of Okabe and Ito's colours, told apart with every kind of colour blindness (https://jfly.uni-koeln.de/color/).
TRUTH_COLOR, PREDICTION_COLOR = "#0072B2", "#D55E00"

Cell = tuple[np.ndarray, str]
"""A picture uint8 (H, W, 3) and its title."""


def overlay(image: np.ndarray, mask: np.ndarray, color: str) -> np.ndarray:
    """Lays a mask over a photo so that a hairline crack on white plaster is seen.

    The photo is paled to grey, the mask filled, and a rim of a two hundred and fiftieth of the longer side drawn
    around it: a line of one pixel stays visible in a thumbnail.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), target where above 0.
        color: As `#rrggbb`.

    Returns:
        uint8 (H, W, 3).
    """
    rgb = np.array(ImageColor.getrgb(color), np.float32)
    grey = image.mean(axis=2, keepdims=True, dtype=np.float32)
    canvas = np.repeat(0.55 * grey + 0.25 * 255, 3, axis=2)  # (H, W, 3), lighter and flatter than the photo
    inside = mask > 0
    rim_width = max(1, round(max(mask.shape) / 250))
    grown = Image.fromarray(inside * np.uint8(255)).filter(ImageFilter.MaxFilter(2 * rim_width + 1))
    rim = (np.asarray(grown) > 0) & ~inside
    canvas[inside] = 0.5 * canvas[inside] + 0.5 * rgb
    canvas[rim] = rgb
    return canvas.astype(np.uint8)


def draw_overlay(photo: np.ndarray, mask: np.ndarray, longest: int = 1600) -> Image.Image:
    """Lays a mask uint8 (H, W) over its photo uint8 (H, W, 3), at most `longest` pixels wide and high."""
    box = Letterbox.fit(photo.shape[:2], min(longest, max(photo.shape[:2])))
    small = Image.fromarray(mask).reduce(max(1, -(-max(mask.shape) // longest)))  # a mean: what is fine stays above 0
    size = box.content_hw[::-1]
    return Image.fromarray(overlay(box.resize(photo), np.asarray(small.resize(size)), PREDICTION_COLOR))


def plot_grid(rows: list[list[Cell]], cell_inches: float = 3.6) -> Figure:
    """Plots rows of pictures, each under its title, at the width of a notebook for three columns."""
    if not rows:
        figure = Figure(figsize=(3 * cell_inches, 0.6))
        figure.text(0.01, 0.4, "Nothing to show: no image with a target, or none that could be read.", fontsize=10)
        return figure
    columns = max(map(len, rows))
    ratios = [max(image.shape[0] / image.shape[1] for image, _ in row) for row in rows]
    height = sum(ratio * cell_inches + 0.5 for ratio in ratios)
    figure = Figure(figsize=(columns * cell_inches, height), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=ratios)
    for axis in axes.flat:
        axis.set_axis_off()
    for axes_row, row in zip(axes, rows, strict=True):
        for axis, (image, title) in zip(axes_row, row, strict=False):
            axis.imshow(image)
            shown = _shorten(title, round(cell_inches * 10))
            axis.set_title(shown, fontsize=10 if cell_inches > 3 else 8, loc="left", wrap=True)
    return figure


def _shorten(title: str, limit: int) -> str:
    """Takes the middle out of a file name, which cannot be wrapped and would run into the next title."""
    if " " in title or len(title) <= limit:
        return title
    return f"{title[: limit - 12]}...{title[-9:]}"


def panel(image: np.ndarray, target: np.ndarray, mask: np.ndarray, title: str) -> list[Cell]:
    """Returns the three cells Original | Ground truth | Prediction; `title` goes over the last."""
    truth = "Ground truth" if target.any() else "Ground truth: nothing of it here"
    return [
        (image, "Original"),
        (overlay(image, target, TRUTH_COLOR), truth),
        (overlay(image, mask, PREDICTION_COLOR), title),
    ]


def choose_examples(per_image: pd.DataFrame) -> pd.DataFrame:
    """Chooses for each label the best, the median and the worst image by IoU, with the column `rank`.

    Images without target are taken only where a label has no others; fewer than three images give fewer rows.
    """
    chosen = []
    for label in LABELS:
        rows = per_image[per_image.label == label]
        with_target = rows[rows.tp + rows.fn > 0]
        rows = (with_target if len(with_target) else rows).sort_values(["iou", "image_id"], ascending=False)
        positions = {0: "best", len(rows) // 2: "median", len(rows) - 1: "worst"} if len(rows) else {}
        chosen.append(rows.iloc[list(positions)].assign(rank=list(positions.values())))
    return pd.concat(chosen, ignore_index=True)


def run_examples(config: RunConfig, manifest: Manifest) -> list[tuple[str, str, list[Cell]]]:
    """Returns label, rank and panel of the chosen examples of an evaluated run.

    Raises:
        FileNotFoundError: If the run was not evaluated.
        ValueError: If it was evaluated on other data.
    """
    folder = run_folder_of(config)
    if not (folder / "per_image.csv").is_file():
        raise FileNotFoundError(f"{folder / 'per_image.csv'}: not there; run 03_evaluate with this run_name first")
    per_image = pd.read_csv(folder / "per_image.csv", dtype={"image_id": str, "photo_id": str})
    cut = read_json(folder / "metrics.json")["presence_cut"]
    rows = {(row.image_id, row.label): row for row in manifest.table.itertuples(index=False)}
    examples = []
    for example in choose_examples(per_image).itertuples(index=False):
        row = rows.get((example.image_id, example.label))
        if row is None:
            raise ValueError(f"{folder / 'per_image.csv'}: {example.image_id} is not in {manifest.folder}")
        title = f"{example.prompt}, {example.rank}: IoU {example.iou:.2f}, threshold {example.threshold:.2f}"
        if example.presence < cut:
            title += f"; emptied: presence {example.presence:.3f} is under the cut of {cut:.3f}"
        image, target = read_image(manifest.image_file(row)), read_mask(manifest.mask_file(row))
        cells = panel(image, target, read_mask(folder / "masks" / example.mask_file), title)
        examples.append((example.label, example.rank, cells))
    return examples


def save_panels(config: RunConfig, manifest: Manifest) -> dict[str, Figure]:
    """Draws the examples of an evaluated run, one figure a label, into the run's `panels/<label>.png`."""
    examples = run_examples(config, manifest)
    figures = {}
    for label in dict.fromkeys(label for label, _, _ in examples):
        figures[label] = plot_grid([cells for owner, _, cells in examples if owner == label])
        save_figure(figures[label], run_folder_of(config) / "panels" / f"{label}.png")
    return figures


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whole or not at all."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110)


def plot_examples(manifest: Manifest, per_label: int = 2) -> Figure:
    """Plots photos with the truth of a label beside them: the first ones of each that have a target."""
    rows = []
    for label in LABELS:
        table = manifest.table[(manifest.table.label == label) & (manifest.table.mask_area > 0)]
        row = []
        for record in table.drop_duplicates("photo_id").head(per_label).itertuples(index=False):
            image, mask = read_image(manifest.image_file(record)), read_mask(manifest.mask_file(record))
            truth = f"{canonical_prompt(label)} ({record.annotation_kind})"
            row += [(image, record.photo_id), (overlay(image, mask, TRUTH_COLOR), truth)]
        if row:
            rows.append(row)
    return plot_grid(rows, cell_inches=2.8)


def plot_predictions(photos: list[tuple[Any, list[Prediction]]]) -> Figure:
    """Plots photos (path or array), one a row, each followed by the masks of its prompts."""
    rows = []
    for photo, predictions in photos:
        image = read_image(photo)
        cells = [(image, Path(photo).name if isinstance(photo, (str, Path)) else "Original")]
        for answer in predictions:
            share = np.count_nonzero(answer.mask) / answer.mask.size
            title = f"{answer.prompt}: {share:.1%} of the photo" if share else f"{answer.prompt}: nothing found"
            cells.append((overlay(image, answer.mask, PREDICTION_COLOR), title))
        rows.append(cells)
    return plot_grid(rows)
