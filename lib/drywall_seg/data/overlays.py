"""Overlays: COCO files without images, whose entries find their photographs by the image file's sha256."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from drywall_seg.data.coco import CocoImage, DataError, Rasterised, rasterise, read_coco
from drywall_seg.prompts import LABELS
from drywall_seg.runs import write_mask

Rows = dict[tuple[str, str], dict[str, Any]]
"""Rows of a manifest by (image_id, label)."""


def mask_path(label: str, image_id: str) -> str:
    """Returns where a row's mask lies, relative to the manifest's folder.

    >>> mask_path("crack", "cracks.coco/train/2416_jpg.rf.bf2b.jpg")
    'masks/crack/cracks.coco/train/2416_jpg.rf.bf2b.png'
    """
    return f"masks/{label}/{PurePosixPath(image_id).with_suffix('')}.png"


def store_mask(folder: Path, row: dict[str, Any], drawn: Rasterised) -> None:
    """Writes a row's mask below the manifest's folder and notes it in the row."""
    row["mask_path"] = mask_path(row["label"], row["image_id"])
    row["annotation_kind"] = drawn.kind
    row["mask_area"] = int(np.count_nonzero(drawn.mask))
    write_mask(folder / row["mask_path"], drawn.mask)


def apply_overlay(file: Path, folder: Path, hashes: dict[str, list[str]], rows: Rows) -> dict[str, int]:
    """Adds an overlay's truth to the rows, in place, and writes its masks below the manifest's folder.

    The label is the name of an annotation's category; an entry without annotations says that nothing of its `label`
    (or of the file's only category) is there. A label that the image has already is replaced, another adds a row.
    `hashes` has image ids by the image file's sha256.

    Returns:
        How many entries matched an image, how many did not, and how many rows were added or replaced.

    Raises:
        DataError: If an entry has no sha256, another size than its image, or a category that is no label.
    """
    images, categories = read_coco(file)
    by_image: dict[str, dict[str, Any]] = {}
    for row in rows.values():
        by_image.setdefault(row["image_id"], row)
    counts = {"n_matched": 0, "n_unmatched": 0, "n_added": 0, "n_replaced": 0}
    for image in images:
        sha256 = image.entry.get("sha256")
        where = f"{file}: image {image.entry['id']} ({image.file_name})"
        if not isinstance(sha256, str):
            raise DataError(f"{where}: its sha256 is {sha256!r}, so the file is no overlay; move it elsewhere")
        counts["n_matched" if sha256 in hashes else "n_unmatched"] += 1
        for label, annotations in _by_label(image, categories, where).items():
            for image_id in hashes.get(sha256, ()):
                known = by_image[image_id]
                if image.size_hw != (known["height"], known["width"]):
                    raise DataError(f"{where}: size {image.size_hw} is not that of {image_id}")
                row = {**known, "label": label}
                counts["n_replaced" if (image_id, label) in rows else "n_added"] += 1
                store_mask(folder, row, rasterise(annotations, image.size_hw, where))
                rows[image_id, label] = row
    return counts


def _by_label(image: CocoImage, categories: dict[int, str], where: str) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for annotation in image.annotations:
        grouped.setdefault(categories[annotation["category_id"]], []).append(annotation)
    if not grouped:
        only = next(iter(categories.values())) if len(categories) == 1 else None
        grouped = {str(image.entry.get("label", only)): []}
    for label in grouped:
        if label not in LABELS:
            raise DataError(f"{where}: category {label!r} is not a label ({', '.join(LABELS)})")
    return grouped
