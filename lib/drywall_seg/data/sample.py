"""The sample: drawn photographs, laid out as two Roboflow COCO exports and an overlay.

Points, paths and polygons are as in `sample_pictures`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from drywall_seg.data.sample_pictures import band, copy_photograph, disc, draw_photograph, inside
from drywall_seg.runs import hash_file, whole_folder

SHAPES = ((1, 1), (1, 0.75), (0.75, 1), (1, 1), (1, 0.65), (0.8, 1))  # width, height in parts of `size`, in turn
COPIES = {"crack": (1, 2, 1, 2, 1, 3, 1, 1) * 6, "joint": (2, 1, 3, 2) * 6}  # of a photograph: 72 and 48 images
EMPTY = {"crack": (4, 29), "joint": (9,)}  # photographs that show nothing to annotate
OVERLAY, SCREWS = "joint_lines.coco.json", "screws.coco.json"
EXPORTS = {"crack": "cracks.coco", "joint": "Drywall-Join-Detect.coco"}
CATEGORIES = {"crack": ("crack", "cracks"), "joint": ("Drywall-Join", "drywall-join")}  # an unused parent, the used
# The first branched cracks are one annotation, or their smallest branch takes a rare form; else a polygon a branch.
CASES = "rings rle uncompressed box rings rle degenerate uncompressed crowd rings".split()
LICENCE = "https://creativecommons.org/publicdomain/zero/1.0/"
README = """Drywall sample 1, seed {}, size {}{}: drawn by the program drywall_seg, from no photograph.
Public domain (CC0 1.0, {}).
"""


def _annotation(polygons, size_wh, case="polygon"):
    """A COCO annotation in the form that `case` names; box and area are rounded as Roboflow rounds them."""
    corners = [np.clip(polygon.view(float).reshape(-1, 2), 0, size_wh) for polygon in polygons]
    low, high = np.concatenate(corners).min(0), np.concatenate(corners).max(0)
    box = [int(edge) for edge in (*np.floor(low + 0.5), *np.ceil(high - low))]  # may end a pixel past the image
    segmentation = [ring.round(1).ravel().tolist() for ring in corners]
    if case in ("rle", "uncompressed", "crowd"):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, size_wh[1], size_wh[0]))
        pixels = coco_mask.decode(rle).ravel(order="F")
        runs = np.diff([0, *np.flatnonzero(np.diff(pixels, prepend=0)), pixels.size]).tolist()
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode() if case == "rle" else runs}
    segmentation = {"box": [], "degenerate": [[*low.round(1), *high.round(1)]]}.get(case, segmentation)
    area, crowd = box[2] * box[3], int(case == "crowd")
    return {"bbox": box, "area": area, "segmentation": segmentation, "iscrowd": crowd}


def _annotate_crack(paths, size_wh, unit, cases):
    """The annotations of one image; a branched crack takes the next of `cases`, which is used up."""
    polygons = sorted((band(path, unit) for path in paths), key=lambda z: -np.ptp(z.real) * np.ptp(z.imag))
    case = cases.pop(0) if cases and len(polygons) > 1 else "polygon"
    if case in ("rings", "rle", "uncompressed"):
        return [_annotation(polygons, size_wh, case)]
    forms = ["polygon"] * (len(polygons) - 1) + [case]
    return [_annotation([polygon], size_wh, form) for polygon, form in zip(polygons, forms, strict=False)]


def _mark_joint(path, size_wh, unit):
    """The overlay's annotation of one joint: a band of 5 units along its centre line."""
    line = np.clip(path[0][[0, -1]].view(float).reshape(-1, 2), 0, size_wh).round(1).tolist()
    straight = (path[0][[0, -1]], 2.5 * unit)
    extra = {"centre_line": line, "visible_width": round(2 * path[1][0], 1), "faint": False, "unboxed": False}
    return _annotation([band(straight)], size_wh) | extra


def _write_coco(path, pairs, categories):
    """Writes (image, its annotations) pairs as a COCO file; `categories` are (id, name, supercategory)."""
    found = [(i, annotation) for i, (_, annotations) in enumerate(pairs) for annotation in annotations]
    coco = {
        "info": {"year": "2026", "version": "1", "description": "Drawn by drywall_seg"},
        "licenses": [{"id": 1, "url": LICENCE, "name": "CC0 1.0"}],
        "categories": [{"id": i, "name": name, "supercategory": parent} for i, name, parent in categories],
        "images": [{"id": i} | image for i, (image, _) in enumerate(pairs)],
        "annotations": [{"id": n, "image_id": i, "category_id": 1} | a for n, (i, a) in enumerate(found, 1)],
    }
    path.write_text(json.dumps(coco, separators=(",", ":")) + "\n", encoding="utf-8")


def _part(kind, index, copy):
    """Where a copy is published: like Roboflow, with no regard to which photograph it is of."""
    if kind == "crack" and index % 16 == 3:
        return "test"
    return "valid" if (index + 2 * copy) % 5 == 4 else "train"


def _write_image(folder, name, image, seed_copy):
    """Saves a JPEG as Roboflow names it; returns its COCO entry and its SHA-256."""
    rf = hashlib.md5(f"{name} {seed_copy}".encode(), usedforsecurity=False).hexdigest()
    file_name = f"{name}_jpg.rf.{rf}.jpg"
    image.save(folder / file_name, quality=90)
    entry = {"license": 1, "file_name": file_name, "height": image.height, "width": image.width}
    return entry, hash_file(folder / file_name)


def _write_export(root, kind, seed, size, with_screws):
    """Writes one export below `root`, and with the joints the overlays."""
    folder, unit, cases, parts, overlay, screwed = root / EXPORTS[kind], size / 320, list(CASES), {}, [], []
    for index, copies in enumerate(COPIES[kind]):
        rng = np.random.default_rng([seed, list(EXPORTS).index(kind), index])
        size_wh = tuple(round(size * part) for part in SHAPES[index % len(SHAPES)])
        photograph, truth, screws = draw_photograph(rng, kind, size_wh, unit, index in EMPTY[kind])
        for copy in range(copies):
            image, move = copy_photograph(rng, photograph) if copy else (photograph, lambda points: points)
            part, name = _part(kind, index, copy), f"{kind}_{index:02d}"
            (folder / part).mkdir(parents=True, exist_ok=True)
            entry, sha256 = _write_image(folder / part, name, image, (seed, copy))
            paths = [inside((move(points), half), image.size) for points, half in truth]
            paths = [path for path in paths if len(inside(path, image.size, 0)[0]) > 3]
            if kind == "crack":
                entry |= {"extra": {"name": f"{name}.jpg"}}
                found = _annotate_crack(paths, image.size, unit, cases)
            else:
                found = [_annotation([band(path, 4 * unit)], image.size, "box") for path in paths]
                marks = [_mark_joint(path, image.size, unit) for path in paths]
                overlay += [(entry | {"sha256": sha256}, marks)] if marks else []
                heads = [
                    disc(*spot) for p, r in screws for spot in zip(*inside((move(p), r), image.size, 0), strict=True)
                ]
                screwed.append((entry | {"sha256": sha256}, [_annotation([head], image.size) for head in heads]))
            parts.setdefault(part, []).append((entry | {"date_captured": "2026-01-01T00:00:00+00:00"}, found))
    parent, used = CATEGORIES[kind]
    for part, pairs in parts.items():
        _write_coco(folder / part / "_annotations.coco.json", pairs, [(0, parent, "none"), (1, used, parent)])
    if overlay:
        _write_coco(root / OVERLAY, overlay, [(1, "joint_line", "none")])
    if screwed and with_screws:
        _write_coco(root / SCREWS, screwed, [(1, "screw", "none")])


def write_sample(root: Path | str, seed: int = 42, size: int = 320, screws: bool = False) -> Path:
    """Draws the sample and writes it as one whole folder; where the same sample is already, does nothing.

    Writes `cracks.coco` (72 images of 48 photographs: polygons of one and several rings, RLE of both kinds, a
    crowd, an empty and a degenerate segmentation), `Drywall-Join-Detect.coco` (48 images of 24 photographs: boxes
    only), and the joints' centre lines as the overlay `joint_lines.coco.json`. Copies of one photograph may lie in
    different parts.

    Args:
        root: Folder to make; it may exist and be empty.
        seed: The same seed and size give the same bytes, as long as Pillow and numpy are the same.
        size: Longer side of the photographs in pixels, at least 96.
        screws: Also write the overlay `screws.coco.json`, for a label `screw` of one's own (`project.LABELS_FILE`).

    Returns:
        `root`.

    Raises:
        FileExistsError: If `root` is something other than this sample, whole.
        ValueError: If `size` is below 96.
    """
    if size < 96:
        raise ValueError(f"size {size}: the sample needs at least 96 pixels")
    target, readme = Path(root).resolve(), README.format(seed, size, ", with screws" if screws else "", LICENCE)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        note, whole = target / "README.dataset.txt", sum(map(sum, COPIES.values()))
        same = note.is_file() and note.read_text(encoding="utf-8", errors="replace") == readme
        if same and (target / OVERLAY).is_file() and len(list(target.glob("*.coco/*/*.jpg"))) == whole:
            return Path(root)
        sample = f"the whole sample of seed {seed} and size {size}"
        raise FileExistsError(f"{root} is neither empty nor {sample}; remove it or name another folder")
    with whole_folder(target) as partial:
        for kind in EXPORTS:
            _write_export(partial, kind, seed, size, screws)
        (partial / "README.dataset.txt").write_text(readme, encoding="utf-8")
    return Path(root)
