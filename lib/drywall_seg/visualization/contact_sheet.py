"""A contact sheet of a run: Original | Ground truth | Prediction, a page of rows at a time, as one block of HTML."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from drywall_seg.config import resolve_path, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.evaluate import run_predictor
from drywall_seg.evaluation.metrics import dice, iou, mask_counts
from drywall_seg.images import ImageError, Letterbox, read_image, read_mask
from drywall_seg.inference.predict import Prediction
from drywall_seg.prompts import canonical_prompt
from drywall_seg.runs import run_folder
from drywall_seg.settings import RunConfig
from drywall_seg.visualization.html import plain, render, to_jpeg
from drywall_seg.visualization.panels import PREDICTION_COLOR, TRUTH_COLOR, overlay

SIDE = 480
"""Longer side of a picture at most, in pixels."""

Predict = Callable[[np.ndarray, str], Prediction]
"""Says what a run's model finds of a label on a photo uint8 (H, W, 3)."""
Column = tuple[np.ndarray | None, str, list[str]]
"""Picture uint8 (H, W, 3) or None, its title, and the lines under it."""


def predict_when_needed(config: RunConfig) -> Predict:
    """Returns what predicts as `03_evaluate` does for this run; the model is loaded with the first photo."""
    load = cache(lambda: run_predictor(config))

    def predict(photo: np.ndarray, label: str) -> Prediction:
        return load().predict(photo, [canonical_prompt(label)], config.threshold, with_probs=False)[0]

    return predict


def render_sheet(
    rows: pd.DataFrame,
    config: RunConfig,
    manifest: Manifest,
    other_run: str | None = None,
    predict: Predict | None = None,
) -> str:
    """Draws rows with their pictures; opens their files and no others.

    A row whose photo or mask is missing, broken or of another size shows the error in place of its pictures.

    Args:
        rows: Some `sheet_rows`, as many as one page takes.
        config: The run.
        manifest: The data.
        other_run: Name of the run whose masks stand beside, as for `sheet_rows`.
        predict: For rows that were not evaluated; None for the run's model, loaded if there are such.

    Returns:
        HTML with its own style sheet and no script; without rows it says so.
    """
    predict = predict or predict_when_needed(config)
    folders = [run_folder_of(config)]
    if other_run is not None:
        folders.append(run_folder(resolve_path(config.outputs_root), other_run))
    return _fill_in([_row(row, manifest, folders, predict) for row in rows.itertuples(index=False)])


def render_error(text: str) -> str:
    """Returns a page that shows an error in place of its rows."""
    return _fill_in([], plain(text))


def _fill_in(rows: list[dict[str, Any]], error: str = "") -> str:
    colors = {"truth_color": TRUTH_COLOR, "prediction_color": PREDICTION_COLOR}
    return render("contact_sheet", rows=rows, error=error, **colors)


def _row(row: Any, manifest: Manifest, folders: list[Path], predict: Predict) -> dict[str, Any]:
    """Returns what the template shows of a row: name, folder, notes, and figures or an error."""
    name, scored = plain(row.name), not pd.isna(row.iou)
    notes = [row.prompt if scored else canonical_prompt(row.label), f"{row.split} part"]
    if row.copies > 1:
        notes.append(f"copy {row.copy_number} of {row.copies}")
    if not scored:
        notes.append("not evaluated: predicted now")
    if row.stale:
        notes.append("its truth has changed since it was evaluated: run 03_evaluate again")
    about = {"name": name, "folder": plain(row.image_id.rpartition("/")[0]), "notes": plain(", ".join(notes))}
    try:
        columns = _columns(row, manifest, folders, predict)
    except (OSError, ValueError) as error:
        return about | {"figures": [], "error": plain(str(error))}
    figures = []
    for picture, title, lines in columns:
        data = "" if picture is None else to_jpeg(Image.fromarray(picture), 80, subsampling=0)
        figures.append({"data": data, "alt": f"{name}: {title}", "title": title, "lines": lines})
    return about | {"figures": figures, "error": ""}


def _columns(row: Any, manifest: Manifest, folders: list[Path], predict: Predict) -> list[Column]:
    photo = read_image(manifest.image_file(row))
    box = Letterbox.fit(photo.shape[:2], min(SIDE, max(photo.shape[:2])))
    small = box.resize(photo)

    def marked(mask: np.ndarray, color: str) -> np.ndarray:
        return overlay(small, shrink_mask(mask, box.content_hw), color)

    truth = _read(manifest.mask_file(row), photo)
    if pd.isna(row.iou):
        answer = predict(photo, row.label)
        mask, scores = answer.mask, _score(answer, truth)
    else:
        mask, scores = _read(folders[0] / "masks" / row.mask_file, photo), row._asdict()
    kind = f"{row.annotation_kind}, {share_text(truth.mean() / 255)} of the photo"
    known = ("Ground truth", [kind]) if truth.any() else ("Ground truth: nothing of it here", [])
    columns = [
        (small, "Original", [f"{photo.shape[1]} x {photo.shape[0]} pixels"]),
        (marked(truth, TRUTH_COLOR), *known),
        (marked(mask, PREDICTION_COLOR), _found("Prediction", mask), _score_lines(scores)),
    ]
    for other in folders[1:]:
        if pd.isna(row.other_iou):
            columns.append((None, f"Run {other.name}", [f"not scored by {other.name}"]))
            continue
        theirs = _read(other / "masks" / row.other_mask_file, photo)
        lines = _difference_lines(row, folders[0].name)
        columns.append((marked(theirs, PREDICTION_COLOR), _found(f"Run {other.name}", theirs), lines))
    return columns


def _read(file: Path, photo: np.ndarray) -> np.ndarray:
    mask = read_mask(file)
    if mask.shape != photo.shape[:2]:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, photo.shape[:2])]
        raise ImageError(f"{file}: a mask of {sizes[0]} pixels for a photo of {sizes[1]}")
    return mask


def shrink_mask(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Reduces a mask uint8 (H, W) to a size at most its own; what is a pixel wide stays above 0."""
    shares = Image.fromarray(mask).resize(size_hw[::-1], Image.Resampling.BOX)  # of each new pixel that is target
    return np.asarray(shares)


def _score(answer: Prediction, truth: np.ndarray) -> dict[str, float]:
    tp, fp, fn = mask_counts(answer.mask, truth)
    scores = {"iou": float(iou(tp, fp, fn)), "dice": float(dice(tp, fp, fn))}
    scores |= {"false_alarm": fp / truth.size, "missed": fn / truth.size}
    return scores | {"threshold": answer.threshold, "doubt": answer.doubt}


def _found(title: str, mask: np.ndarray) -> str:
    return title if mask.any() else f"{title}: nothing found"


def _score_lines(scores: dict[str, Any]) -> list[str]:
    doubt = "" if pd.isna(scores["doubt"]) else f", doubt {scores['doubt']:.2f}"
    return [
        f"IoU {scores['iou']:.2f}, Dice {scores['dice']:.2f}",
        f"false alarm {share_text(scores['false_alarm'])}, missed {share_text(scores['missed'])}",
        f"threshold {scores['threshold']:.2f}{doubt}",
    ]


def _difference_lines(row: Any, run: str) -> list[str]:
    if pd.isna(row.difference):
        return [f"IoU {row.other_iou:.2f}", *([] if pd.isna(row.iou) else ["scored against another truth"])]
    if abs(row.difference) < 0.005:
        return [f"IoU {row.other_iou:.2f}, as {run} has"]
    side = "better" if row.difference > 0 else "worse"
    return [f"IoU {row.other_iou:.2f}: {run} is {abs(row.difference):.2f} {side}"]


def share_text(share: float) -> str:
    r"""Writes a share in per cent, what is small to two places; no line breaks before the sign.

    >>> share_text(0), share_text(0.00042), share_text(0.1234)
    ('0\xa0%', '0.04\xa0%', '12.3\xa0%')
    """
    digits = 0 if share == 0 else 1 if share >= 0.01 else 2
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
