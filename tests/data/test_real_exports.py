"""The real exports in ../shared/data, wherever they are."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.splits import assign_splits, compare_splits, leak_report
from drywall_seg.evaluation.collect import collect_histograms, predict_rows
from drywall_seg.evaluation.metrics import counts_at, mask_counts
from drywall_seg.inference import Predictor
from drywall_seg.prompts import LABELS
from tests.data.exports import coco_truth, image, write_coco

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OVERLAY = ROOT / "data" / "annotations" / "joint_lines.coco.json"
EXPORTS = ("cracks.coco", "cracks-more.coco", "Drywall-Join-Detect.coco")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return build_manifest(DATA, tmp_path_factory.mktemp("processed") / "data", overlays=[OVERLAY])


@pytest.fixture(scope="module")
def table(manifest):
    return manifest.table


def test_images_photographs_and_kinds(table, manifest):
    cracks, taping = (table[table.label == label] for label in ("crack", "taping_area"))
    assert (cracks.image_id.nunique(), cracks.photo_id.nunique()) == (1392, 1110)
    assert (taping.image_id.nunique(), taping.photo_id.nunique()) == (692, 113)
    assert cracks.source.value_counts().to_dict() == {"cracks.coco": 1009, "cracks-more.coco": 383}
    # One image's polygons and its box come together five times.
    assert cracks.annotation_kind.value_counts().to_dict() == {"polygon": 1191, "rle": 195, "mixed": 5, "none": 1}
    assert set(taping.annotation_kind) == {"box"}
    assert not table.duplicated(["image_id", "label"]).any()
    assert (table.width == 640).all() and (table.height == 640).all()
    assert manifest.info["summary"]["n_images"] == 2084


def test_each_photograph_of_the_overlay_has_a_joint_line(table, manifest):
    joints = table[table.label == "joint_line"]
    entries = json.loads(OVERLAY.read_text())["images"]
    hashes = {hashlib.sha256(manifest.image_file(row).read_bytes()).hexdigest() for row in joints.itertuples()}
    assert len(entries) == 113 and hashes == {entry["sha256"] for entry in entries}
    assert joints.photo_id.nunique() == len(joints) == 113
    assert set(joints.photo_id) == set(table.photo_id[table.label == "taping_area"])
    counts = {"n_matched": 113, "n_unmatched": 0, "n_added": 113, "n_replaced": 0}
    assert manifest.info["summary"]["overlays"] == {OVERLAY.name: counts}


def test_no_photograph_is_in_two_splits(table):
    for seed in (42, 1, 2):
        split = assign_splits(table, "photo", seed)
        assert (split.groupby(table.photo_id).nunique() == 1).all()
    photographs = table.drop_duplicates("photo_id").groupby(["label", "split"]).size()
    assert photographs["crack"].to_dict() == {"train": 777, "val": 166, "test": 167}
    assert photographs["taping_area"].to_dict() == {"train": 79, "val": 16, "test": 18}
    assert not leak_report(table).n_leaked.any()


def test_what_the_other_splits_leak(table):
    report = compare_splits(table, 42).set_index(["split", "label"])
    leaks = {key: (row.n_leaked, row.n_images) for key, row in report.iterrows()}
    assert {key: leak for key, leak in leaks.items() if not key[0].startswith("photo")} == {
        ("image / val", "crack"): (59, 208),
        ("image / test", "crack"): (45, 210),
        ("image / val", "taping_area"): (92, 103),
        ("image / test", "taping_area"): (100, 105),
        ("image / val", "joint_line"): (7, 17),
        ("image / test", "joint_line"): (13, 16),
        ("publisher / val", "crack"): (1, 201),
        ("publisher / test", "crack"): (4, 4),
        ("publisher / val", "taping_area"): (167, 169),
        ("publisher / val", "joint_line"): (12, 14),
    }


@pytest.fixture(scope="module")
def truth():
    """pycocotools' masks by annotation file and file name."""
    files = [f for export in EXPORTS for f in sorted((DATA / export).glob("*/_annotations.coco.json"))]
    return {file: coco_truth(file) for file in [*files, OVERLAY]}


def truth_of(truth, manifest, row):
    photo = manifest.image_file(row)
    if row.label != "joint_line":
        return truth[photo.parent / "_annotations.coco.json"][photo.name]
    return truth[OVERLAY][photo.name]


def test_every_mask_is_pycocotools_pixel_for_pixel(manifest, truth):
    for row in manifest.table.itertuples():
        with Image.open(manifest.mask_file(row)) as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (row.width, row.height))
            pixels = np.array(mask)
        expected = truth_of(truth, manifest, row)
        assert np.array_equal(pixels, np.where(expected, 255, 0)), row.mask_path
        assert row.mask_area == expected.sum() and (row.mask_area > 0) == (row.annotation_kind != "none")
    assert sum(len(masks) for masks in truth.values()) == len(manifest.table) == 2197


def pillow_mask(rings, size_hw, scale):
    """The union of polygons by Pillow, drawn `scale` times as large and looked at in the middle of each pixel."""
    drawn = np.zeros(size_hw, bool)
    for ring in rings:
        points = np.reshape(ring, (-1, 2))
        left, top = np.floor(points.min(0)).astype(int).clip(0)
        right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, size_hw[::-1])
        canvas = Image.new("L", (int(right - left) * scale, int(bottom - top) * scale))
        ImageDraw.Draw(canvas).polygon(((points - (left, top)) * scale).ravel().tolist(), fill=1)
        drawn[top:bottom, left:right] |= np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale] > 0
    return drawn


def polygons(file):
    """Rings by file name, of images whose annotations are all polygons."""
    data = json.loads(file.read_text())
    rings = {entry["id"]: [] for entry in data["images"]}
    other = set()
    for item in data["annotations"]:
        if isinstance(item["segmentation"], list) and item["segmentation"]:
            rings[item["image_id"]] += item["segmentation"]
        else:
            other.add(item["image_id"])
    return {e["file_name"]: rings[e["id"]] for e in data["images"] if rings[e["id"]] and e["id"] not in other}


def test_masks_agree_with_pillow(manifest, truth):
    """IoU of at least .9 with a second rasteriser where the target has over 500 pixels.

    Pillow paints every pixel that an outline touches, which at the photo's own size alone is more than a tenth of a
    thin crack. So the drawing is refined, up to 16 times, until both agree to .95.
    """
    rings = {file: polygons(file) for file in truth}
    lowest, n_compared, n_refined = 1.0, 0, 0
    for row in manifest.table[manifest.table.mask_area > 500].itertuples():
        photo = manifest.image_file(row)
        file = OVERLAY if row.label == "joint_line" else photo.parent / "_annotations.coco.json"
        if photo.name not in rings[file]:
            continue  # a box or an RLE: compared with pycocotools only
        mask = np.array(Image.open(manifest.mask_file(row))) > 0
        for scale in (1, 4, 16):
            other = pillow_mask(rings[file][photo.name], mask.shape, scale)
            overlap = (mask & other).sum() / (mask | other).sum()
            if overlap >= 0.95:
                break
        assert overlap >= 0.9, (row.mask_path, overlap)
        lowest, n_compared, n_refined = min(lowest, overlap), n_compared + 1, n_refined + (scale == 16)
    print(f"lowest IoU with Pillow {lowest:.3f} of {n_compared} masks, {n_refined} of them at scale 16")
    assert n_compared == 1297 and n_refined < 200


def test_boxes_are_filled_and_cut_at_the_border(manifest):
    file = DATA / "Drywall-Join-Detect.coco" / "valid" / "_annotations.coco.json"
    data = json.loads(file.read_text())
    names = {entry["id"]: entry["file_name"] for entry in data["images"]}
    rows = {
        Path(row.image_path).name: row for row in manifest.table[manifest.table.label == "taping_area"].itertuples()
    }
    for item in data["annotations"]:
        x, y, width, height = item["bbox"]
        mask = np.array(Image.open(manifest.mask_file(rows[names[item["image_id"]]])))
        assert (mask[round(y) + 1 : round(y + height) - 1, round(x) + 1 : round(x + width) - 1] == 255).all()


def test_joint_images_under_other_names_still_find_their_overlay_rows(manifest, tmp_path):
    joints = manifest.table[manifest.table.label == "joint_line"].iloc[::19]
    part = tmp_path / "in" / "Drywall-Join-Detect.v7.coco" / "test"
    part.mkdir(parents=True)
    entries = []
    for number, row in enumerate(joints.itertuples()):
        shutil.copy(manifest.image_file(row), part / f"site photo {number}.png.jpg")
        entries.append(image(number, f"site photo {number}.png.jpg", (row.height, row.width)))
    write_coco(part / "_annotations.coco.json", entries)
    renamed = build_manifest(tmp_path / "in", tmp_path / "manifest", overlays=[OVERLAY])
    found = renamed.table[renamed.table.label == "joint_line"]
    assert len(found) == len(joints) == 6
    for old, new in zip(joints.itertuples(), found.sort_values("image_id").itertuples(), strict=True):
        masks = (np.array(Image.open(m.mask_file(r))) for m, r in ((manifest, old), (renamed, new)))
        assert np.array_equal(*masks) and new.mask_area == old.mask_area
    counts = {"n_matched": 6, "n_unmatched": 107, "n_added": 6, "n_replaced": 0}
    assert renamed.info["summary"]["overlays"] == {OVERLAY.name: counts}


def test_the_rle_images_are_as_encoded(manifest):
    file = DATA / "cracks-more.coco" / "train" / "_annotations.coco.json"
    data = json.loads(file.read_text())
    areas = {}
    for item in data["annotations"]:
        if isinstance(item["segmentation"], dict):
            areas[item["image_id"]] = int(coco_mask.area(item["segmentation"]))
    names = {entry["id"]: entry["file_name"] for entry in data["images"]}
    rows = manifest.table[manifest.table.annotation_kind == "rle"]
    found = dict(zip(rows.image_path.str.split("/").str[-1], rows.mask_area, strict=True))
    assert found == {names[image_id]: area for image_id, area in areas.items()} and len(found) == 195


def test_histograms_give_the_counts_of_real_masks_at_every_threshold(manifest):
    predictor = Predictor.load("compact")
    rows = manifest.rows("test").groupby("label").head(4)
    scored, histograms = collect_histograms(predictor, manifest, rows)
    answers = predict_rows(predictor, manifest, rows)
    assert set(scored.label) == set(LABELS) and len(scored) == 12
    for (_, answer, target), histogram in zip(answers, histograms, strict=True):
        levels = np.rint(answer.probs * np.float32(255))
        for number in range(1, 100):
            mask = levels >= math.ceil(255 * (number / 100))
            assert tuple(counts_at(histogram, number / 100)) == mask_counts(mask, target)
