"""Masks as COCO annotations: run lengths, or polygons as annotation tools import them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_fill_holes, find_objects, label

from drywall_seg.images import read_mask
from drywall_seg.runs import progress, write_json

# Corners of a pixel's sides, walked with the inside on the right hand (y down): (y, x) from and to.
_SIDES = (((0, 0), (0, 1)), ((0, 1), (1, 1)), ((1, 1), (1, 0)), ((1, 0), (0, 0)))
_NEIGHBOURS = ((-1, 0), (0, 1), (1, 0), (0, -1))


def to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask (H, W) as COCO's compressed run lengths, counts as text, so that it is JSON."""
    encoded = coco_mask.encode(np.asfortranarray(mask > 0, np.uint8))
    return encoded | {"counts": encoded["counts"].decode("ascii")}


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Returns a mask (H, W) as polygons [x0, y0, x1, y1, ...] along the edges of its pixels; none for an empty mask.

    No polygon has a hole, which COCO has no way to say: what surrounds one is cut into two that meet at it. Together
    they cover the mask's pixels and no other.
    """
    pieces = _without_holes(mask > 0, np.zeros(2, int))
    return [(_outline(piece) + corner)[:, ::-1].astype(float).ravel().tolist() for piece, corner in pieces]


def to_annotation(
    mask: np.ndarray, annotation_id: int, image_id: int, category_id: int, polygons: bool
) -> dict[str, Any]:
    """Returns a COCO annotation of a mask (H, W) that is not empty, as polygons or as run lengths."""
    rle = to_rle(mask)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "iscrowd": 0 if polygons else 1,
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).astype(int).tolist(),
        "segmentation": to_polygons(mask) if polygons else rle,
    }


def write_coco(path: str, table: pd.DataFrame, polygons: bool) -> None:
    """Writes masks as a COCO file, whole or not at all, as polygons or as run lengths.

    The table has rows with photo, prompt (a category), mask (its file; an empty one leaves its image without
    annotation) and presence.
    """
    prompts, images, annotations = list(table.prompt.unique()), {}, []
    numbers = dict(zip(table.photo, pd.factorize(table.photo)[0] + 1, strict=True))
    for row in progress(table.itertuples(), "COCO", "mask", len(table)):
        mask, number = read_mask(row.mask), int(numbers[row.photo])
        images[number] = {"id": number, "file_name": row.photo, "height": mask.shape[0], "width": mask.shape[1]}
        if mask.any():
            category = prompts.index(row.prompt) + 1
            annotation = to_annotation(mask, len(annotations) + 1, number, category, polygons)
            annotations.append(annotation | {"score": row.presence})
    categories = [{"id": number, "name": prompt} for number, prompt in enumerate(prompts, 1)]
    write_json(path, {"images": list(images.values()), "categories": categories, "annotations": annotations})


def _without_holes(inside: np.ndarray, corner: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pieces and their corners (y, x): one with holes is cut through their middle until none has one."""
    labelled, _ = label(inside)  # by sides: pieces that touch at a corner are two
    for number, window in enumerate(find_objects(labelled), 1):
        piece, start = labelled[window] == number, corner + (window[0].start, window[1].start)
        holes = np.flatnonzero((binary_fill_holes(piece) & ~piece).any(axis=0))
        if not len(holes):
            yield piece, start
            continue
        column = int(holes[len(holes) // 2]) + 1  # not the first: a thousand holes would be as many calls deep
        yield from _without_holes(piece[:, :column], start)
        yield from _without_holes(piece[:, column:], start + (0, column))


def _outline(piece: np.ndarray) -> np.ndarray:
    """Returns the corners (N, 2), y and x, of a piece without holes whose pixels all touch by sides."""
    padded = np.pad(piece, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for (start, end), (down, right) in zip(_SIDES, _NEIGHBOURS, strict=True):
        outside = ~np.roll(padded, (-down, -right), (0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(piece & outside).tolist():
            following[y + start[0], x + start[1]].append((y + end[0], x + end[1]))
    first = min(following)
    walk, way = [first], (0, 1)
    while len(walk) == 1 or walk[-1] != first or following[first]:
        here = walk[-1]
        # Where two pixels touch at this corner, turn right first: round the pixel that one is at.
        step = min(following[here], key=lambda to: _turn(way, (to[0] - here[0], to[1] - here[1])))
        following[here].remove(step)
        way = (step[0] - here[0], step[1] - here[1])
        walk.append(step)
    points = np.array(walk[:-1])
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[(before != after).any(axis=1)]


def _turn(way: tuple[int, int], step: tuple[int, int]) -> int:
    """Returns -1 for a turn to the right (y down), 0 for straight on, 1 for one to the left."""
    return -int(np.sign(way[1] * step[0] - way[0] * step[1]))
