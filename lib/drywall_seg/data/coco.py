"""Roboflow's COCO exports: which there are, what they say, and their annotations as masks."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from drywall_seg.prompts import LABELS, OWN_LABELS

# The label of an export, by the name of its folder. Another export's label is given by the caller.
EXPORT_LABELS: tuple[tuple[str, str], ...] = (("cracks*", "crack"), ("drywall-join-detect*", "taping_area"))
EXPORT_LABELS += tuple((pattern, own.name) for own in OWN_LABELS for pattern in own.exports)

PARTS = ("train", "valid", "test")
ANNOTATION_FILE = "_annotations.coco.json"


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the id and the value."""


@dataclass(frozen=True)
class Export:
    """One exported data set: a folder with the parts train, valid and test, or some of them."""

    folder: Path
    label: str

    @property
    def annotation_files(self) -> list[Path]:
        """The annotation files that are there, in the order of `PARTS`."""
        return [f for part in PARTS if (f := self.folder / part / ANNOTATION_FILE).is_file()]


@dataclass
class CocoImage:
    """One image entry and its annotations."""

    entry: dict[str, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """The name as it stands in the file."""
        return self.entry["file_name"]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.entry["height"], self.entry["width"]


def find_exports(data_root: Path, labels: dict[str, str] | None = None) -> list[Export]:
    """Finds the exports in a folder, or the folder itself where it is one.

    Args:
        data_root: Looked at down to two levels of folders.
        labels: Label by folder name, for exports that `EXPORT_LABELS` does not know.

    Raises:
        DataError: If there is none, or the label of one is unknown.
    """
    found = {f.parent.parent for depth in ("*", "*/*", "*/*/*") for f in data_root.glob(f"{depth}/{ANNOTATION_FILE}")}
    # A hidden folder is a tool's own, such as the rest of a download that was stopped.
    found = {f for f in found if not any(part.startswith(".") for part in f.relative_to(data_root).parts)}
    folders = sorted(folder for folder in found if any((folder / p / ANNOTATION_FILE).is_file() for p in PARTS))
    if not folders:
        missing = f"COCO export in it (a folder with train/{ANNOTATION_FILE})" if data_root.is_dir() else "such folder"
        raise DataError(f"{data_root}: no {missing}")
    return [Export(folder, _export_label(folder, labels or {})) for folder in folders]


def _export_label(folder: Path, labels: dict[str, str]) -> str:
    name = folder.absolute().name
    label = labels.get(name) or next((lb for pat, lb in EXPORT_LABELS if fnmatch(name.casefold(), pat)), None)
    if label not in LABELS:
        known = ", ".join(f"{pattern} is {label}" for pattern, label in EXPORT_LABELS)
        raise DataError(f"{folder}: {label or name!r} goes with no label ({known}); rename the folder or add a label")
    return label


def read_coco(path: Path) -> tuple[list[CocoImage], dict[int, str]]:
    """Reads and checks a COCO file.

    Returns:
        The images with their annotations, in file order, and category names by id.

    Raises:
        DataError: If it is not COCO, an image's id or name comes twice, a name or size is not one, an annotation is of
            an unknown image or category, or a bbox is not four finite numbers.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path}: not COCO, {key!r} is not a list of objects")
    categories = {c.get("id"): str(c.get("name")) for c in data["categories"] if type(c.get("id")) is int}
    images, names = dict[int, CocoImage](), set()
    for entry in data["images"]:
        _check_image(path, entry)
        if entry["id"] in images or entry["file_name"] in names:
            raise DataError(f"{path}: image id {entry['id']!r} ({entry['file_name']!r}) comes twice")
        names.add(entry["file_name"])
        images[entry["id"]] = CocoImage(entry)
    for annotation in data["annotations"]:
        image_id, category, bbox = map(annotation.get, ("image_id", "category_id", "bbox"))
        where = f"{path}: annotation {annotation.get('id')!r:.80}"
        if type(image_id) is not int or image_id not in images:
            raise DataError(f"{where}: its image {image_id!r:.120} is not in the file")
        if type(category) is not int or category not in categories:
            raise DataError(f"{where}: its category {category!r:.120} is not in the file")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
            raise DataError(f"{where}: bbox {bbox!r:.120} is not four finite numbers")
        images[image_id].annotations.append(annotation)
    return list(images.values()), categories


def _is_number(value: Any) -> bool:
    # Compared, not converted: an integer may be larger than any float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_image(path: Path, entry: dict[str, Any]) -> None:
    name = entry.get("file_name")
    if type(entry.get("id")) is not int or not isinstance(name, str):
        raise DataError(f"{path}: not COCO, an image entry without id or file_name: {entry!r:.200}")
    if not _is_plain_name(name):
        raise DataError(f"{path}: image {entry['id']}: file name {name!r:.300} is not a plain name")
    for side in ("height", "width"):
        if type(entry.get(side)) is not int or not 0 < entry[side] <= 100_000:
            raise DataError(f"{path}: image {entry['id']} ({name}): {side} {entry.get(side)!r:.120} is not a size")


def _is_plain_name(name: str) -> bool:
    """Whether a name stays in its folder, can be a file's and a table's, and leaves room for a suffix."""
    plain = name == Path(name).name and name not in ("", ".", "..") and "\\" not in name and min(name) >= " "
    encoded = name.encode(errors="replace")  # JSON can hold half a character, which no file name can
    return plain and encoded.decode() == name and len(encoded) <= 200


@dataclass(frozen=True)
class Rasterised:
    """An image's annotations as one mask."""

    mask: np.ndarray
    """uint8 (H, W), values {0, 255}."""
    kind: str
    """polygon, box, rle, mixed or none."""
    n_degenerate: int
    """Polygons with under three points or no area, for which their box stands in."""


def rasterise(annotations: Iterable[dict[str, Any]], size_hw: tuple[int, int], where: str) -> Rasterised:
    """Draws the union of annotations with pycocotools' own rules.

    A `segmentation` that is empty or only degenerate is replaced by its box, clipped to the image. Crowd regions
    count as target. Without annotations the mask is empty.

    Args:
        annotations: COCO annotations of one image.
        size_hw: The image's height and width in pixels.
        where: What an error message starts with: file and image.

    Raises:
        DataError: If a segmentation is none of polygons, RLE or empty, or it or the box in its place cannot be right.
    """
    mask = np.zeros(size_hw, np.uint8)
    kinds, n_degenerate = set(), 0
    for annotation in annotations:
        place = f"{where}: annotation {annotation.get('id')!r:.80}"
        segmentation = annotation.get("segmentation") or []
        if isinstance(segmentation, dict):
            kinds.add("rle")
            mask |= decode_rle(segmentation, size_hw, place)
            continue
        rings = [ring for ring in _check_rings(segmentation, size_hw, place) if _has_area(ring, size_hw)]
        n_degenerate += len(segmentation) - len(rings)
        kinds.add("polygon" if rings else "box")
        for shape in rings or _clipped_box(annotation["bbox"], size_hw, place):
            mask |= coco_mask.decode(coco_mask.frPyObjects(shape, *size_hw))[..., 0]
    kind = kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "none"
    return Rasterised(mask * np.uint8(255), kind, n_degenerate)


def _check_rings(segmentation: Any, size_hw: tuple[int, int], place: str) -> list[list[list[float]]]:
    """Returns the rings, each as a list of one, which is what pycocotools takes for a polygon."""
    limit = 10 * max(1000, *size_hw)  # far outside the picture: pycocotools would walk every pixel on the way
    for ring in segmentation if isinstance(segmentation, list) else [segmentation]:
        if not isinstance(ring, list) or len(ring) % 2 or not all(map(_is_number, ring)):
            raise DataError(f"{place}: segmentation {ring!r:.120} is not a list of x, y numbers")
        if any(abs(value) > limit for value in ring):
            raise DataError(f"{place}: segmentation {max(ring, key=abs)!r} lies far outside the {size_hw} image")
    return [[ring] for ring in segmentation]


def _has_area(shape: list[list[float]], size_hw: tuple[int, int]) -> bool:
    points = np.array(shape[0], np.float64).reshape(-1, 2)
    x, y = (points - points[:1]).T
    if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) > 1e-6:
        return True
    # A figure of eight has area though its halves cancel out; points on one line have none.
    on_a_line = len(points) < 3 or np.linalg.matrix_rank(np.stack([x, y]), tol=1e-6) < 2
    return not on_a_line and bool(coco_mask.area(coco_mask.frPyObjects(shape, *size_hw))[0])


def _clipped_box(bbox_xywh: list[float], size_hw: tuple[int, int], place: str) -> list[np.ndarray]:
    """Returns the box cut to the image, as pycocotools takes it, or nothing where no area is left."""
    x, y, width, height = bbox_xywh
    if min(width, height) < 0:
        raise DataError(f"{place}: bbox {bbox_xywh!r:.120} has a negative side, and nothing else is drawn")
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size_hw[1]), min(y + height, size_hw[0])
    return [np.array([[left, top, right - left, bottom - top]], np.float64)] if right > left and bottom > top else []


def decode_rle(rle: dict[str, Any], size_hw: tuple[int, int], place: str) -> np.ndarray:
    """Returns COCO's run lengths, as a list or as text, as a mask uint8 (H, W), {0, 1}; refuses all else."""
    counts, size = rle.get("counts"), list(size_hw)
    if rle.get("size") != size:
        raise DataError(f"{place}: RLE size {rle.get('size')!r:.80} is not the image's {size}")
    runs = _unpack_counts(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not whole or sum(runs) != size_hw[0] * size_hw[1]:
        raise DataError(f"{place}: RLE counts {counts!r:.80} do not add up to the image's pixels")
    return coco_mask.decode(coco_mask.frPyObjects({"size": size, "counts": runs}, *size_hw))


def _unpack_counts(text: str) -> list[int] | None:
    """Unpacks COCO's compressed run lengths, None if broken: pycocotools would read past the end of the text."""
    runs, number, shift = [], 0, 0
    for char in text:  # 5 bits of a number, lowest first, and whether more follow
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)  # the sign
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))  # differences to the run two before
            number, shift = 0, 0
    return runs if shift == 0 else None
