"""What people corrected in the viewer: checked, and merged into the overlay that `01_prepare` takes."""

import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from drywall_seg.config import resolve_path
from drywall_seg.data.coco import DataError, decode_rle
from drywall_seg.images import MOST_PIXELS
from drywall_seg.prompts import LABELS
from drywall_seg.runs import read_json, write_json

FORMAT = "drywall-seg corrections 1"
VERDICTS = ("right", "wrong", "redraw")
FILE = "reviewed.coco.json"
"""In `data/annotations`, whose files apply in the order of their names: after those that ship."""

Judged = tuple[dict[str, Any], dict[str, Any] | None]
"""An image's entry in the overlay and its annotation; None where nothing is there."""


def take_corrections(file: str, folder: str = "data/annotations") -> str:
    """Imports a file of corrections, relative to the project's root, and says what it did; nothing for no file."""
    if not file:
        return "no file of corrections was given"
    done = import_corrections(resolve_path(file), resolve_path(folder))
    lines = [f"{done['n_imported']} corrections in {done['overlay']}"]
    if done["n_older"]:
        lines.append(f"{done['n_older']} are older than what is there, which stays")
    if names := done["to_redraw"]:
        lines.append(f"{len(names)} still to be redrawn: {', '.join(map(repr, names))}")
    if done["n_imported"]:
        lines.append("01_prepare takes them, and the next training learns from those that are in its train part")
    return "\n".join(lines)


def import_corrections(path: Path, folder: Path) -> dict[str, Any]:
    """Merges a file that the viewer saved into a folder's overlay `reviewed.coco.json`.

    A photo and label that is there already is replaced by a later judgement and kept against an earlier one, so the
    same file may come twice. An image that a person only marked to be redrawn adds no truth.

    Returns:
        overlay (its path), and how many corrections were n_imported, n_older (kept out by a later one), and
        to_redraw: the names of the photos that still are to be redrawn.

    Raises:
        DataError: If the file is none of the viewer's, or a value in it cannot be right. Nothing is written then.
    """
    corrections = _read_corrections(path)
    overlay = folder / FILE
    known = _read_overlay(overlay)
    n_imported, n_older, to_redraw = 0, 0, []
    for correction in corrections:
        key = correction["sha256"], correction["label"]
        if correction["counts"] is None:
            to_redraw.append(correction["name"])
        elif key in known and _when(known[key][0]["reviewed"]) > _when(correction):
            n_older += 1
        else:
            known[key] = _entry_of(correction), _own_size_mask(correction)
            n_imported += 1
    if n_imported:
        write_json(overlay, _overlay_of([known[key] for key in sorted(known)]))
    return {"overlay": overlay, "n_imported": n_imported, "n_older": n_older, "to_redraw": to_redraw}


def _read_corrections(path: Path) -> list[dict[str, Any]]:
    """Reads and checks a file that the viewer saved: it may have come by mail."""
    try:
        data = read_json(path)
    except ValueError as error:
        raise DataError(f"{path}: not a file of corrections ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("corrections"), list):
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{path}: not a file of corrections: its format is {found!r:.80}, not {FORMAT!r}")
    for number, correction in enumerate(data["corrections"], 1):
        where = f"{path}: correction {number}"
        if not isinstance(correction, dict):
            raise DataError(f"{where}: {correction!r:.80} is no correction")
        _check(correction, where)
    return data["corrections"]


def _check(correction: dict[str, Any], where: str) -> None:
    tests = {
        "sha256": _is_hash,
        "name": _is_text,
        "prompt": _is_text,
        "label": LABELS.__contains__,
        "verdict": VERDICTS.__contains__,
        "time": _is_time,
        "model": _is_text,
        "threshold": lambda v: type(v) in (int, float) and 0 <= v <= 1,
        "painted": lambda v: isinstance(v, bool),
        "height": _is_side,
        "width": _is_side,
        "factor": _is_side,
        "size": lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_side, v)),
    }
    for name, test in tests.items():
        if not test(correction.get(name)):
            raise DataError(f"{where}: {name} is {correction.get(name)!r:.80}")
    if (pixels := correction["height"] * correction["width"]) > MOST_PIXELS:
        raise DataError(f"{where}: a photo of {pixels / 1e6:.0f} megapixels is more than {MOST_PIXELS / 1e6:.0f}")
    shown = [math.ceil(correction[side] / correction["factor"]) for side in ("height", "width")]
    if correction["size"] != shown:
        raise DataError(f"{where}: size {correction['size']} is not 1/{correction['factor']} of the photo's, {shown}")
    if correction.setdefault("counts") is not None or correction["verdict"] != "redraw":
        decode_rle({"size": shown, "counts": correction["counts"]}, tuple(shown), where)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST_PIXELS


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_text(value: Any) -> bool:
    # JSON can hold half a character, which no file can.
    return isinstance(value, str) and len(value) <= 1000 and value.encode("utf-8", "replace").decode() == value


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.endswith("Z") and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _when(judged: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(judged["time"])


def _own_size_mask(correction: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the mask at the photo's own size as run lengths; None where it is empty."""
    shown = decode_rle({"size": correction["size"], "counts": correction["counts"]}, tuple(correction["size"]), "")
    factor = correction["factor"]
    mask = np.repeat(np.repeat(shown, factor, axis=0), factor, axis=1)[: correction["height"], : correction["width"]]
    if not mask.any():
        return None
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {
        "iscrowd": 1,
        "area": int(mask.sum()),
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "segmentation": {"size": [*mask.shape], "counts": encoded["counts"].decode("ascii")},
    }


def _entry_of(correction: dict[str, Any]) -> dict[str, Any]:
    own = ("height", "width", "sha256", "label", "name")
    of_review = ("verdict", "time", "model", "threshold", "painted", "factor")
    return {
        "file_name": f"{correction['sha256'][:16]}__{correction['label']}",  # a name may be another photo's too
        **{name: correction[name] for name in own},
        "reviewed": {name: correction[name] for name in of_review},
    }


def _overlay_of(entries: list[Judged]) -> dict[str, Any]:
    images, annotations = [], []
    for number, (entry, shape) in enumerate(entries, 1):
        images.append({**entry, "id": number})
        if shape:
            category = LABELS.index(entry["label"]) + 1
            annotations.append({**shape, "id": len(annotations) + 1, "image_id": number, "category_id": category})
    categories = [{"id": number, "name": label} for number, label in enumerate(LABELS, 1)]
    about = "Judged and corrected by a person in the viewer of drywall-seg."
    return {"info": {"description": about}, "images": images, "annotations": annotations, "categories": categories}


def _read_overlay(path: Path) -> dict[tuple[str, str], Judged]:
    if not path.is_file():
        return {}
    data = read_json(path)
    try:
        shapes = {shape["image_id"]: shape for shape in data["annotations"]}
        for entry in data["images"]:
            if not (_is_time(entry["reviewed"]["time"]) and entry["label"] in LABELS and _is_hash(entry["sha256"])):
                raise ValueError(entry["id"])
        return {(entry["sha256"], entry["label"]): (entry, shapes.get(entry["id"])) for entry in data["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not an overlay of corrections ({error!r}); move it elsewhere") from error
