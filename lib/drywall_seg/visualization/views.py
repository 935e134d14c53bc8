"""What slider, viewer and gallery show: a photo, a sentence, what a model says as 8-bit levels, the truth if any."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.collect import unseen_rows
from drywall_seg.evaluation.metrics import counts_at, dice, iou, score_histogram
from drywall_seg.images import read_image, read_mask
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.prompts import PROMPTS, canonical_prompt, slug
from drywall_seg.runs import hash_file

# Okabe and Ito's colours, as everywhere here: blue is truth, orange is found; what is both is green.
BOTH, FOUND, MISSED = "#009E73", "#D55E00", "#0072B2"


@dataclass(frozen=True)
class Item:
    """A photo that is to be asked for something; nothing of it is read yet."""

    name: str
    photo: Path
    prompt: str
    truth: Path | None = None
    """File of the mask."""
    note: str = ""
    """What a list says of it."""


@dataclass(frozen=True)
class View:
    """A photo that was asked for something."""

    item: Item
    image: np.ndarray
    """uint8 (H, W, 3)."""
    levels: np.ndarray
    """uint8 (H, W), round(255 p)."""
    target: np.ndarray | None
    """uint8 (H, W), {0, 255}; None where there is no truth."""
    histogram: np.ndarray
    """int64 (2, 256), as from `score_histogram`; without truth all pixels count as others."""
    label: str
    """Of which threshold and post-processing are."""
    understood: bool
    """Whether the sentence is one of the label's own; else it is only the nearest label."""
    threshold: float
    presence: float
    presence_cut: float
    sha256: str
    """Of the photo's file."""
    model: str
    """Hash of the weights."""


def val_items(predictor: Predictor, manifest: Manifest, per_label: int = 12) -> list[Item]:
    """Returns photos of val with a target, for each label the first of as many photographs as wanted.

    Thresholds are chosen on val: looking for one on test would be choosing on test.
    """
    rows, _ = unseen_rows(predictor, manifest, "val")
    rows = rows[rows.mask_area > 0].sort_values(["image_id", "label"]).drop_duplicates(["label", "photo_id"])
    return [
        Item(Path(row.image_path).name, manifest.image_file(row), canonical_prompt(row.label), manifest.mask_file(row))
        for row in rows.groupby("label").head(per_label).itertuples(index=False)
    ]


def photo_items(photos: Iterable[Path], prompts: Iterable[str]) -> list[Item]:
    """Returns photos without truth, each asked for each sentence."""
    prompts = list(prompts)
    return [Item(Path(photo).name, Path(photo), prompt) for photo in photos for prompt in prompts]


def look(predictor: Predictor, item: Item) -> View:
    """Asks a model for an item.

    Raises:
        ImageError: If photo or mask cannot be read.
        ValueError: If the truth has another size than the photo.
    """
    image = read_image(item.photo)
    target = read_mask(item.truth) if item.truth else None
    if target is not None and target.shape != image.shape[:2]:
        raise ValueError(f"{item.truth}: its size {target.shape} is not that of {item.photo}, {image.shape[:2]}")
    (answer,) = predictor.predict(image, [item.prompt])
    levels = to_levels(answer.probs)
    label = predictor.label_for(item.prompt)
    return View(
        item,
        image,
        levels,
        target,
        score_histogram(levels, np.zeros_like(levels) if target is None else target),
        label,
        slug(item.prompt) in map(slug, PROMPTS[label]),
        answer.threshold,
        answer.presence,
        predictor.presence_cut,
        hash_file(item.photo),
        predictor.backend.model_hash,
    )


def threshold_of(level: int) -> float:
    """Returns a threshold of three places whose first level this is.

    >>> threshold_of(102), threshold_of(128), threshold_of(255)
    (0.4, 0.501, 1.0)
    """
    return math.floor(1000 * level / 255) / 1000


def scores_at(view: View, threshold: float) -> dict[str, Any]:
    """Returns tp, fp, fn, iou, dice and area (share of the photo) of the raw mask, from the score histogram.

    Without truth all but the area are None.
    """
    return score_counts(view, *counts_at(view.histogram, threshold).tolist())


def score_counts(view: View, tp: int, fp: int, fn: int) -> dict[str, Any]:
    """Returns what `scores_at` does for counted pixels."""
    area = (tp + fp) / view.levels.size
    if view.target is None:
        return dict.fromkeys(("tp", "fp", "fn", "iou", "dice")) | {"area": area}
    return {"tp": tp, "fp": fp, "fn": fn, "iou": float(iou(tp, fp, fn)), "dice": float(dice(tp, fp, fn)), "area": area}


def reduce_by(array: np.ndarray, factor: int) -> np.ndarray:
    """Shrinks levels or a mask (H, W) to the largest value of each square, so that a line of one pixel stays.

    Pillow's `reduce` shrinks a photo to the means of the same squares.
    """
    if factor == 1:
        return array
    rows = np.maximum.reduceat(array, np.arange(0, array.shape[0], factor), axis=0)
    return np.maximum.reduceat(rows, np.arange(0, array.shape[1], factor), axis=1)


def pale(photo: Image.Image) -> np.ndarray:
    """Returns a photo in lighter, flatter grey, uint8 (H, W, 3): marks in colour stand out on it."""
    grey = photo.convert("L").point([round(0.55 * value + 0.25 * 255) for value in range(256)])
    return np.asarray(grey.convert("RGB"))


def paint(canvas: np.ndarray, mask: np.ndarray, target: np.ndarray | None) -> np.ndarray:
    """Lays a mask over a photo uint8 (H, W, 3), which stays as it is: `BOTH`, `FOUND` alone, `MISSED`.

    Mask and target are (H, W), true where above 0; without a target all of the mask is `FOUND`.
    """
    found, truth = mask > 0, np.zeros(mask.shape, bool) if target is None else target > 0
    painted = canvas.copy()
    for color, inside in ((BOTH, found & truth), (FOUND, found & ~truth), (MISSED, truth & ~found)):
        rgb = np.array(ImageColor.getrgb(color), np.uint16)
        painted[inside] = (canvas[inside] + 3 * rgb) // 4
    return painted


def figures_html(scores: dict[str, Any], what: str, with_truth: bool) -> str:
    """Returns what `scores_at` gives, of the mask that `what` says, as an HTML table with the legend of the colours."""
    rows = [("marked, of the photo", f"{scores['area']:.2%}")]
    if scores["iou"] is not None:
        rows = [("IoU", f"{scores['iou']:.4f}"), ("Dice", f"{scores['dice']:.4f}"), *rows]
        names = {"tp": "found and true, pixels", "fp": "found, not true, pixels", "fn": "true, missed, pixels"}
        rows += [(words, str(scores[name])) for name, words in names.items()]
    cells = "".join(f'<tr><td>{name}</td><td style="text-align:right"><b>{value}</b></td></tr>' for name, value in rows)
    colors = (
        {BOTH: "found and true", FOUND: "found, not true", MISSED: "true, missed"} if with_truth else {FOUND: "found"}
    )
    swatch = '<span style="display:inline-block;width:1em;height:1em;background:{}"></span> {}<br>'
    nothing = "" if scores["area"] else "<b>Nothing found at this threshold.</b><br>"
    legend = "".join(swatch.format(color, words) for color, words in colors.items())
    return f"<table>{cells}</table><p>{nothing}{what}, at the photo's own size.</p><p>{legend}</p>"
