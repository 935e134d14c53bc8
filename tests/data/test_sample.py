import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from drywall_seg.data.sample import write_sample

EXPORTS = {"cracks.coco": ("train", "valid", "test"), "Drywall-Join-Detect.coco": ("train", "valid")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "made" / "sample")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("small") / "sample", seed=7, size=96)


def entries(root, export):
    """(folder, image, its annotations) for each image of an export."""
    for part in EXPORTS[export]:
        coco = json.loads((root / export / part / "_annotations.coco.json").read_text())
        assert len({image["id"] for image in coco["images"]}) == len(coco["images"])
        assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])
        for image in coco["images"]:
            yield (
                root / export / part,
                image,
                [a for a in coco["annotations"] if a["image_id"] == image["id"]],
            )


def rasterised(annotation, height, width):
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return coco_mask.decode(segmentation).astype(bool)
    if isinstance(segmentation, dict):
        return coco_mask.decode(coco_mask.frPyObjects(segmentation, height, width)).astype(bool)
    if segmentation and len(segmentation[0]) >= 6:
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))).astype(bool)
    mask, (x, y, w, h) = np.zeros((height, width), bool), annotation["bbox"]
    mask[y : y + h, x : x + w] = True
    return mask


def case(annotation):
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        form = "rle" if isinstance(segmentation["counts"], str) else "uncompressed"
        return "crowd" if annotation["iscrowd"] else form
    if not segmentation:
        return "empty"
    return "rings" if len(segmentation) > 1 else "two points" if len(segmentation[0]) == 4 else "polygon"


def file_bytes(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    assert file_bytes(write_sample(tmp_path / "again", seed=7, size=96)) == file_bytes(small)
    other = file_bytes(write_sample(tmp_path / "other", seed=8, size=96))
    assert not set(other.values()) & {data for name, data in file_bytes(small).items() if name.endswith("jpg")}


def test_second_call_does_nothing_and_leaves_no_scratch_folder(small):
    before = {p: p.stat().st_mtime_ns for p in small.parent.rglob("*")}
    assert write_sample(str(small), seed=7, size=96) == small
    assert {p: p.stat().st_mtime_ns for p in small.parent.rglob("*")} == before
    assert [p.name for p in small.parent.iterdir()] == ["sample"]


def test_refuses_what_is_not_this_sample(small, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="mine"):
        write_sample(tmp_path / "mine", size=96)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(FileExistsError, match="seed 9"):
        write_sample(small, seed=9, size=96)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        write_sample(tmp_path / "file", size=96)


def test_fills_an_empty_folder_and_refuses_it_once_a_picture_is_gone(tmp_path):
    write_sample(tmp_path, seed=1, size=96)
    next(tmp_path.rglob("*.jpg")).unlink()
    with pytest.raises(FileExistsError, match="seed 1"):
        write_sample(tmp_path, seed=1, size=96)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("drywall_seg.data.sample._write_coco", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_sample(tmp_path / "sample", size=96)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_size_too_small_to_draw(tmp_path):
    with pytest.raises(ValueError, match="size 95"):
        write_sample(tmp_path / "sample", size=95)


def test_counts_sizes_and_copies(sample):
    images = {export: list(entries(sample, export)) for export in EXPORTS}
    counts = {export: len(found) for export, found in images.items()}
    assert counts == {"cracks.coco": 72, "Drywall-Join-Detect.coco": 48}
    assert sum(p.stat().st_size for p in sample.rglob("*") if p.is_file()) < 3e6
    for export, photographs in (("cracks.coco", 48), ("Drywall-Join-Detect.coco", 24)):
        parts = {}
        for folder, image, _ in images[export]:
            with Image.open(folder / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
            assert len(image["file_name"].split(".rf.")[1]) == 36
            parts.setdefault(image["file_name"].split(".rf.")[0], set()).add(folder.name)
        assert len(parts) == photographs
        assert any({"train", "valid"} <= where for where in parts.values())  # the published split leaks
        assert sum(image["width"] != image["height"] for _, image, _ in images[export]) >= counts[export] // 3
        assert any(not annotations for *_, annotations in images[export])


@pytest.mark.parametrize("which", ["sample", "small"])
def test_every_case_of_a_segmentation_occurs(which, request):
    root = request.getfixturevalue(which)
    cracks = [(image, a) for _, image, annotations in entries(root, "cracks.coco") for a in annotations]
    cases = {"polygon", "rings", "rle", "uncompressed", "crowd", "empty", "two points"}
    assert {case(a) for _, a in cracks} == cases
    past = [a["bbox"][i] + a["bbox"][i + 2] - im[side] for im, a in cracks for i, side in ((0, "width"), (1, "height"))]
    assert max(past) == 1
    joints = [a for *_, annotations in entries(root, "Drywall-Join-Detect.coco") for a in annotations]
    assert {case(a) for a in joints} == {"empty"}
    for export in EXPORTS:
        coco = json.loads((root / export / "train" / "_annotations.coco.json").read_text())
        parent, used = coco["categories"]
        assert (parent["id"], used["supercategory"]) == (0, parent["name"])
    assert {a["category_id"] for a in joints} | {a["category_id"] for _, a in cracks} == {1}


def test_every_annotation_has_pixels(sample):
    for export in EXPORTS:
        for _, image, annotations in entries(sample, export):
            for annotation in annotations:
                x, y, w, h = annotation["bbox"]
                assert min(x, y) >= 0 and min(w, h) > 0 and annotation["area"] == w * h
                assert rasterised(annotation, image["height"], image["width"]).any()


def test_crack_truth_covers_the_dark_stroke_in_every_copy(sample):
    darker, shares = [], []
    for folder, image, annotations in entries(sample, "cracks.coco"):
        if not annotations or {"empty", "two points"} & {case(a) for a in annotations}:
            continue
        grey = np.asarray(Image.open(folder / image["file_name"]).convert("L"), float)
        truth = np.any([rasterised(a, *grey.shape) for a in annotations], 0)
        near = np.roll(truth, 8, 1) & ~truth  # the same shape, aside of the crack
        near[:, :8] = False
        darker.append(grey[truth].mean() < grey[near].mean() - 15)
        shares.append(truth.mean())
    assert len(darker) > 50 and np.mean(darker) > 0.95
    assert 0.005 < np.median(shares) < 0.08


def test_overlay_belongs_to_the_pictures_and_runs_inside_the_boxes(sample):
    overlay = json.loads((sample / "joint_lines.coco.json").read_text())
    assert [c["name"] for c in overlay["categories"]] == ["joint_line"]
    entry = {image["sha256"]: image for image in overlay["images"]}
    seen = 0
    for folder, image, annotations in entries(sample, "Drywall-Join-Detect.coco"):
        digest = hashlib.sha256((folder / image["file_name"]).read_bytes()).hexdigest()
        if not annotations:
            assert digest not in entry
            continue
        size_hw = (image["height"], image["width"])
        assert (entry[digest]["height"], entry[digest]["width"]) == size_hw
        marks = [a for a in overlay["annotations"] if a["image_id"] == entry[digest]["id"]]
        assert len(marks) == len(annotations)
        for mark, box in zip(marks, annotations, strict=True):
            band = rasterised(mark, *size_hw)
            assert band.any() and band[rasterised(box, *size_hw)].sum() > 0.95 * band.sum()
            (x0, y0), (x1, y1) = mark["centre_line"]
            assert band[int(min((y0 + y1) / 2, size_hw[0] - 1)), int(min((x0 + x1) / 2, size_hw[1] - 1))]
        seen += 1
    assert seen == len(overlay["images"]) == 47


def test_an_open_joint_is_dark_along_its_centre_line(sample):
    """In every copy, turned or not, the gap itself must lie where the overlay says."""
    overlay, found = json.loads((sample / "joint_lines.coco.json").read_text()), []
    paths = {p.name: p for p in (sample / "Drywall-Join-Detect.coco").rglob("*.jpg")}
    for mark in overlay["annotations"]:
        if mark["visible_width"] > 5:
            continue
        image = next(i for i in overlay["images"] if i["id"] == mark["image_id"])
        grey = np.asarray(Image.open(paths[image["file_name"]]).convert("L"), float)
        start, end = np.array(mark["centre_line"])
        along = np.linspace(start, end, 102)[1:-1]  # (100, 2), (x, y)
        aside = (end - start)[::-1] * (-1, 1) / np.hypot(*(end - start))
        lines = [along + aside * shift for shift in (0, -6, 6)]
        rows = [line.clip(0, np.array(grey.shape[::-1]) - 1).astype(int) for line in lines]
        on, left, right = (np.median(grey[row[:, 1], row[:, 0]]) for row in rows)
        found.append(on < min(left, right) - 10)
    assert len(found) >= 10 and all(found)


def test_import_needs_no_torch():
    code = "import sys, drywall_seg.data.sample; sys.exit('torch' in sys.modules)"
    library = Path(sys.modules["drywall_seg.data.sample"].__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=library).returncode == 0
