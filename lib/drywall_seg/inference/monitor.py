"""A log of what was predicted, and whether the photos still look like those that the thresholds were chosen on."""

import errno
import json
import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import laplace

from drywall_seg.images import STRIP, Letterbox
from drywall_seg.inference.predict import Prediction, Predictor
from drywall_seg.inference.scores import FIELDS, N_LEVELS
from drywall_seg.prompts import LABELS
from drywall_seg.runs import is_address, named_disk_errors

COLUMNS = ["time", "model", "prompt", "label", *FIELDS, "width", "height", "seconds"]
COMPARED = ["label", "field", "n", "median", "reference_median", "distance", "share_outside", "warning"]
LEVELS = np.linspace(0, 1, N_LEVELS)
LOW, HIGH = 1, 19
"""Places of the 5 % and the 95 % quantile."""
SIDE = 400
"""Longer side, in pixels, at which sharpness is measured; less than photos have, so that all of them are reduced."""
CHANCE, LEAST_DISTANCE = 0.001, 0.3
"""For a warning: how likely chance may be to bring one field to it, and how far from the reference it must be."""
TOLERANCE = {"presence": 0.05, "area": 0.1, "doubt": 0.1, "brightness": 0.05, "sharpness": 0.1, "megapixels": 0.5}
"""Differences too small to matter, in parts of the reference's mean."""
PHOTO_SLACK = 0.7
"""A photo is too dark or blurred below this part of the reference's 5 % quantile."""

WORDS = {"brightness lower": "too dark", "brightness higher": "too bright", "sharpness lower": "too blurred"}
Reference = dict[str, dict[str, Any]]
"""By label: `n`, and for each field its quantiles at `LEVELS`."""

_model_hashes: WeakKeyDictionary[Predictor, str] = WeakKeyDictionary()  # a hash reads all weights: once is enough


def describe_photo(photo: np.ndarray) -> dict[str, float]:
    """Measures a photo uint8 (H, W, 3).

    Returns:
        `brightness`: mean luma in [0, 1]. `sharpness`: the Laplacian's standard deviation, in parts of the mean luma,
        after scaling the longer side to `SIDE`, so that neither size nor exposure matters: 0 where all is flat, .02
        to .4 of most walls, higher is sharper. `megapixels`.
    """
    factor = max(1, max(photo.shape[:2]) // (2 * SIDE))  # whole factors cost least; the rest is antialiased
    step = max(1, STRIP // factor) * factor  # by strips, so that Pillow never copies a large photo whole
    strips = (Image.fromarray(photo[top : top + step]).reduce(factor) for top in range(0, len(photo), step))
    reduced = np.concatenate([np.asarray(strip.convert("L")) for strip in strips])
    luma = Letterbox.fit(reduced.shape, SIDE).resize(reduced)
    laplacian, mean = laplace(luma.astype(np.int16), mode="nearest"), float(luma.mean())
    return {
        "brightness": _short(mean / 255),
        "sharpness": _short(laplacian.std(dtype=np.float32) / max(mean, 1)),
        "megapixels": _short(photo.shape[0] * photo.shape[1] / 1e6),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def log_entry(
    predictor: Predictor,
    photo: np.ndarray,
    prediction: Prediction,
    seconds: float,
    described: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Returns what is logged of one answer to a photo, uint8 (H, W, 3): `COLUMNS`.

    For privacy it holds no picture and no file name, nothing that tells which photo it was; but what was asked, word
    for word. `seconds` went by for the photo with all its prompts; `described` is of `describe_photo`, where known.
    """
    if predictor not in _model_hashes:
        _model_hashes[predictor] = predictor.backend.model_hash
    mask = prediction.mask
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": _model_hashes[predictor],
        "prompt": prediction.prompt,
        "label": predictor.label_for(prediction.prompt),
        "presence": _short(prediction.presence),
        "area": _short(np.count_nonzero(mask) / mask.size),
        "doubt": _short(prediction.doubt),
        **(described or describe_photo(photo)),
        "width": photo.shape[1],
        "height": photo.shape[0],
        "seconds": _short(seconds),
    }


def append_entries(path: str | os.PathLike, entries: Iterable[dict[str, Any]]) -> None:
    """Adds entries to a log as JSON lines, in one write, so that lines of several processes never mix.

    After a line that a killed process left torn it begins on a new one. No entries leave the file as it is.

    Raises:
        ValueError: If the log is at an address, which cannot be added to.
        OSError: If it cannot be written, or not whole.
    """
    if is_address(path):
        raise ValueError(f"{path}: an address cannot be added to; name a file on this machine for the log")
    lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    if not lines:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with named_disk_errors(path), open(path, "ab+", buffering=0) as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            lines = b"\n" + lines  # where another process does so too, the line between is empty, and no harm
        if file.write(lines) < len(lines):  # the rest might land behind another process's lines
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read_log(path: str | os.PathLike) -> pd.DataFrame:
    """Reads a log, oldest entry first.

    Returns:
        `COLUMNS`; the time in UTC. Lines that are not whole are left out and counted in `.attrs["skipped_lines"]`.

    Raises:
        OSError: If there is no such file.
        ValueError: If there is no whole entry in it.
    """
    with open(path, "rb") as file:
        lines = [line for line in file if line.strip()]
    log = pd.DataFrame(filter(None, map(_parse, lines)), columns=COLUMNS)
    log["time"] = pd.to_datetime(log["time"], utc=True, format="ISO8601", errors="coerce")
    log[COLUMNS[4:]] = log[COLUMNS[4:]].apply(pd.to_numeric, errors="coerce")
    log = log.dropna().sort_values("time", kind="stable", ignore_index=True)
    if log.empty:
        raise ValueError(f"{path}: no whole entry in {len(lines)} lines")
    log.attrs["skipped_lines"] = len(lines) - len(log)
    return log


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # torn, or not UTF-8
        return None
    return entry if isinstance(entry, dict) and entry.keys() >= set(COLUMNS) else None


def make_reference(table: pd.DataFrame) -> Reference:
    """Makes what a log is compared with, from val's entries (`label` and `FIELDS`; entries of `log_entry` have them).

    Returns:
        By label: `n`, and for each field 21 quantiles, 0, .05 ... 1, to four digits; plain numbers, for JSON.
    """
    reference: Reference = {}
    for label, rows in table.groupby("label"):
        quantiles = {field: list(map(_short, rows[field].quantile(LEVELS))) for field in FIELDS}
        reference[label] = {"n": len(rows), **quantiles}
    return reference


def compare(log: pd.DataFrame, reference: Reference) -> pd.DataFrame:
    """Compares each label's entries in a log of one model with the reference; {} leaves its columns NaN.

    A field warns on the side where the largest distance between both distributions (Kolmogorov and Smirnov's, with
    Stephens's correction for small n, doi:10.1080/01621459.1974.10480196) is at least `LEAST_DISTANCE` and more than
    chance brings about once in 1,000 times; differences within `TOLERANCE` do not count, and fewer than four entries
    never warn. Entries drawn from the reference itself gave any warning, among 3 labels with 6 fields, in fewer than 1
    log of 100. Photos of one wall, or one photo asked twice, are not independent: they warn more readily.

    Returns:
        A row for each label and field: label, field, n, median, reference_median, distance, share_outside (of the
        entries, outside the reference's 5 to 95 %; 10 % are to be expected), and warning, empty where there is none.
    """
    rows = []
    for label in labels_of(log):
        known, own = reference.get(label, {}), log[log["label"] == label]
        for field in FIELDS:
            values = own[field].to_numpy(float)
            row = {"label": label, "field": field, "n": len(own), "median": np.median(values), "warning": ""}
            rows.append(row | (_compare_field(field, values, known) if known else {}))
    return pd.DataFrame(rows, columns=COMPARED)


def labels_of(log: pd.DataFrame) -> list[str]:
    """Returns the labels that a log has, in the usual order."""
    return sorted(log["label"].unique(), key=[*LABELS, *log["label"]].index)


def _compare_field(field: str, values: np.ndarray, known: dict[str, Any]) -> dict[str, Any]:
    quantiles = np.array(known[field])
    sides = {"lower": (values, quantiles), "higher": (-values, -quantiles[::-1])}
    root = math.sqrt(len(values) * known["n"] / (len(values) + known["n"]))
    critical = math.sqrt(math.log(2 / CHANCE) / 2) / (root + 0.12 + 0.11 / root)
    least, tolerance = max(LEAST_DISTANCE, critical), TOLERANCE[field] * quantiles.mean()
    found = [f"{field} {side}" for side, both in sides.items() if _below(*both, tolerance) >= least]
    return {
        "reference_median": quantiles[len(LEVELS) // 2],
        "distance": max(_below(*both) for both in sides.values()),
        "share_outside": np.mean((values < quantiles[LOW]) | (values > quantiles[HIGH])),
        "warning": "; ".join(WORDS.get(text, f"unlike the training photos: {text}") for text in found),
    }


def _below(values: np.ndarray, quantiles: np.ndarray, tolerance: float = 0.0) -> float:
    """Returns by how much more of the values lies below some point than of the reference; in [0, 1]."""
    values = np.sort(values) + tolerance
    place = np.searchsorted(quantiles, values, side="right")  # quantiles may repeat, so np.interp will not do
    left, right = np.maximum(place - 1, 0), np.minimum(place, len(LEVELS) - 1)
    width = quantiles[right] - quantiles[left]
    part = np.divide(values - quantiles[left], width, out=np.zeros(len(values)), where=width > 0)
    expected = np.where(place == 0, 0, LEVELS[left] + part * (LEVELS[right] - LEVELS[left]))
    return max(0.0, float(np.max(np.arange(1, len(values) + 1) / len(values) - expected)))


def photo_warnings(described: dict[str, float], reference: dict[str, Any]) -> list[str]:
    """Warns of a photo darker, brighter or more blurred than nearly all of the reference: a few in 100 of its own are.

    Takes what `describe_photo` returned, and the reference of the label asked for; {} gives no warnings.
    """
    if not reference:
        return []
    brightness, sharpness = described["brightness"], described["sharpness"]
    found = {
        "too dark": brightness < PHOTO_SLACK * reference["brightness"][LOW],
        "too bright": 1 - brightness < PHOTO_SLACK * (1 - reference["brightness"][HIGH]),
        "too blurred": sharpness < PHOTO_SLACK * reference["sharpness"][LOW],
    }
    return [text for text, is_so in found.items() if is_so]
