"""Tiny COCO exports for tests, and the truth that pycocotools gives for them."""

import contextlib
import io
import json
import zlib

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

CATEGORIES = [
    {"id": 0, "name": "crack", "supercategory": "none"},  # Roboflow's parent, which no annotation uses
    {"id": 1, "name": "NewCracks - v2", "supercategory": "crack"},
]


def image(id, file_name=None, size_hw=(24, 32), **more):
    return {"id": id, "file_name": file_name or f"{id}_jpg.rf.{id:04x}.jpg"} | dict(
        zip(("height", "width"), size_hw, strict=True), **more
    )


def annotation(id, image_id, segmentation=(), bbox=(2, 3, 8, 6), iscrowd=0, category_id=1):
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "area": 1,
        "segmentation": segmentation if isinstance(segmentation, dict) else list(segmentation),
        "iscrowd": iscrowd,
    }


def write_export(folder, images, annotations=(), part="train", categories=CATEGORIES):
    """Writes a part of an export, each image a noise of its own; returns the annotation file."""
    part_folder = folder / part
    part_folder.mkdir(parents=True, exist_ok=True)
    for entry in images:
        write_image(part_folder / entry["file_name"], (entry["height"], entry["width"]))
    return write_coco(part_folder / "_annotations.coco.json", images, annotations, categories)


def write_image(path, size_hw):
    seed = zlib.crc32(f"{path.parent.name}/{path.name}".encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG" if path.suffix == ".png" else "JPEG")


def write_coco(path, images, annotations=(), categories=CATEGORIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def rle(mask, compressed=True):
    """A mask as COCO's run lengths, column by column, beginning with the zeros."""
    if compressed:
        packed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        return {"size": list(mask.shape), "counts": packed["counts"].decode()}
    flat = np.asarray(mask, np.uint8).ravel(order="F")
    borders = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *borders, flat.size]).tolist()}


def coco_truth(annotation_file):
    """The union of each image's annotations by pycocotools: bool (H, W) by file name; a box where nothing is drawn."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotation_file))
    truth = {}
    for entry in coco.loadImgs(coco.getImgIds()):
        size_hw = entry["height"], entry["width"]
        union = np.zeros(size_hw, bool)
        for item in coco.loadAnns(coco.getAnnIds(imgIds=[entry["id"]])):
            if item["segmentation"]:
                union |= coco.annToMask(item).astype(bool)
            else:
                union |= coco_mask.decode(coco_mask.frPyObjects(np.array([item["bbox"]], float), *size_hw))[
                    ..., 0
                ].astype(bool)
        truth[entry["file_name"]] = union
    return truth


def snapshot(folder):
    """Contents and times of all files below a folder, and its folders."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def contents(folder):
    """Like `snapshot` for files, without the times."""
    return {name: file[0] for name, file in snapshot(folder).items() if file}
