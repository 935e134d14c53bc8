"""A training while it runs: one picture, drawn anew after each epoch, that stays in the saved notebook."""

from typing import Any

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import DisplayHandle, Image, display
from matplotlib.figure import Figure
from PIL import Image as PillowImage

from drywall_seg.config import run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.images import read_image, read_mask
from drywall_seg.inference.predict import THRESHOLDS_FILE, Predictor
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import CHECKPOINT, read_json
from drywall_seg.settings import RunConfig
from drywall_seg.training.fit import OnEpoch
from drywall_seg.visualization.charts import draw_history
from drywall_seg.visualization.panels import PREDICTION_COLOR, TRUTH_COLOR, overlay, save_figure

FILE = "training.png"
N_PHOTOS, MOST_ROWS, SIDE = 6, 5, 240
"""Photos that are watched; epochs shown of them; their longer side in pixels."""


def watch_training(config: RunConfig, manifest: Manifest) -> OnEpoch:
    """Returns what draws a run's picture after each epoch: in a notebook, and into the run's `training.png`."""
    folder, photos = run_folder_of(config), watched_photos(manifest)
    read = ((read_image(manifest.image_file(photo)), read_mask(manifest.mask_file(photo))) for photo in photos)
    truths = [_marked(*pair, TRUTH_COLOR) for pair in read]
    looks: list[tuple[int, list[np.ndarray]]] = []
    shown: list[DisplayHandle] = []

    def on_epoch(row: dict[str, Any], predictor: Predictor) -> None:
        thresholds = read_json(folder / CHECKPOINT / THRESHOLDS_FILE)["thresholds"]
        looks.append((row["epoch"], [_prediction(photo, predictor, manifest, thresholds) for photo in photos]))
        history, steps = (pd.read_csv(folder / name) for name in ("history.csv", "steps.csv"))
        save_figure(plot_training(history, steps, config.epochs, photos, truths, looks), folder / FILE)
        picture = Image(data=(folder / FILE).read_bytes())
        if shown:
            shown[0].update(picture)
        elif get_ipython():
            shown.append(display(picture, display_id=True))

    return on_epoch


def watched_photos(manifest: Manifest, number: int = N_PHOTOS) -> list[Any]:
    """Returns rows of val that have a target, each of another photograph: of each label in turn, always the same."""
    rows = manifest.rows("val")
    rows = rows[rows.mask_area > 0].sort_values("image_id").drop_duplicates(["label", "photo_id"])
    left = {label: list(rows[rows.label == label].itertuples(index=False)) for label in LABELS}
    rarest_first = sorted(LABELS, key=lambda label: len(left[label]))
    chosen: dict[str, Any] = {}
    while len(chosen) < number and any(left.values()):
        for label in rarest_first:
            left[label] = [row for row in left[label] if row.photo_id not in chosen]
            if left[label] and len(chosen) < number:
                chosen[left[label][0].photo_id] = left[label][0]
    return sorted(chosen.values(), key=lambda row: LABELS.index(row.label))


def plot_training(
    history: pd.DataFrame,
    steps: pd.DataFrame,
    epochs: int,
    photos: list[Any],
    truths: list[np.ndarray],
    looks: list[tuple[int, list[np.ndarray]]],
) -> Figure:
    """Plots loss and scores, what the last epoch cost and what is left, and the watched photos by epoch.

    Args:
        history: A row an epoch.
        steps: The loss of each step.
        epochs: Of the whole training.
        photos: Rows of val.
        truths: Their pictures with the truth, uint8 (H, W, 3).
        looks: For each epoch its number and the pictures with the predictions; five of them are shown.
    """
    chosen = [looks[i] for i in sorted({round(i) for i in np.linspace(0, len(looks) - 1, MOST_ROWS)})] if looks else []
    rows = [("truth", truths), *((f"epoch {number}", pictures) for number, pictures in chosen)] if photos else []
    heights = [3.6, 1.75 * len(rows)] if rows else [3.6]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    top, *bottom = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_history(*top.subplots(1, 2), history, steps)
    top.suptitle(describe(history, epochs), fontsize=10, x=0.01, ha="left")
    if rows:
        axes = bottom[0].subplots(len(rows), len(photos), squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[], frame_on=False)
        for axes_row, (name, pictures) in zip(axes, rows, strict=True):
            axes_row[0].set_ylabel(name, fontsize=9)
            for axis, picture in zip(axes_row, pictures, strict=True):
                axis.imshow(picture)
        for axis, photo in zip(axes[0], photos, strict=True):
            axis.set_title(canonical_prompt(photo.label), fontsize=9, loc="left")
    return figure


def describe(history: pd.DataFrame, epochs: int) -> str:
    """Says in a line where a training is, how fast, and when it will be done."""
    last = history.iloc[-1]
    left = (epochs - len(history)) * history.seconds.median()
    parts = [
        f"epoch {len(history)} of {epochs}",
        f"learning rate {last.learning_rate:.2g}",
        f"{last.images_per_second:.3g} images a second",
        f"peak memory {last.peak_memory_gb:.2g} GB",
        f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left",
    ]
    return "   ".join(parts[: 4 if len(history) >= epochs else 5])


def _prediction(photo: Any, predictor: Predictor, manifest: Manifest, thresholds: dict[str, float]) -> np.ndarray:
    image = read_image(manifest.image_file(photo))
    (answer,) = predictor.predict(image, [canonical_prompt(photo.label)], thresholds.get(photo.label))
    return _marked(image, answer.mask, PREDICTION_COLOR)


def _marked(image: np.ndarray, mask: np.ndarray, color: str) -> np.ndarray:
    small = PillowImage.fromarray(overlay(image, mask, color))
    small.thumbnail((SIDE, SIDE))
    return np.asarray(small)
