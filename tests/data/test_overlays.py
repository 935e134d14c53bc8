import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from drywall_seg.data.coco import DataError, rasterise
from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.overlays import mask_path
from tests.data.exports import annotation, image, write_coco, write_export
from tests.faults.table import REFUSED

RING = [2, 2, 28, 4, 12, 20]
NAMES = [f"{i}_jpg.rf.{i:04x}.jpg" for i in (1, 2, 3)]


@pytest.fixture
def export(tmp_path):
    """Three joint images with a box each; the folder of the images."""
    folder = tmp_path / "in" / "Drywall-Join-Detect.coco"
    write_export(folder, [image(i) for i in (1, 2, 3)], [annotation(i, i) for i in (1, 2, 3)])
    return folder / "train"


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def overlay(export, entries, items=(), names=("joint_line",), file_name="o.coco.json"):
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    return write_coco(export.parents[2] / "overlays" / file_name, entries, items, categories)


def built(export, *overlays):
    return build_manifest(export.parents[1], export.parents[2] / "manifest", overlays=overlays)


def rows_of(manifest, label):
    rows = manifest.table[manifest.table.label == label]
    return {row.image_id.rpartition("/")[2]: row for row in rows.itertuples()}


def stored(manifest, row):
    return np.array(Image.open(manifest.mask_file(row)))


TRUTH = rasterise([annotation(1, 1, [RING])], (24, 32), "").mask


def test_a_label_that_the_image_lacks_is_added_as_a_row(export):
    file = overlay(export, [image(50, "any name", sha256=sha256(export / NAMES[1]))], [annotation(1, 50, [RING])])
    manifest = built(export, file)
    joints, boxes = rows_of(manifest, "joint_line"), rows_of(manifest, "taping_area")
    assert list(joints) == [NAMES[1]] and list(boxes) == NAMES
    row, box = joints[NAMES[1]], boxes[NAMES[1]]
    assert (row.annotation_kind, box.annotation_kind) == ("polygon", "box")
    assert row.mask_path == mask_path("joint_line", row.image_id) != box.mask_path
    assert np.array_equal(stored(manifest, row), TRUTH) and row.mask_area == np.count_nonzero(TRUTH)
    for column in ("image_id", "source", "photo_id", "image_path", "width", "height", "split"):
        assert getattr(row, column) == getattr(box, column)
    counts = {"n_matched": 1, "n_unmatched": 0, "n_added": 1, "n_replaced": 0}
    assert manifest.info["summary"]["overlays"] == {"o.coco.json": counts}


def test_a_label_that_the_image_has_is_replaced(export):
    entries = [image(1, sha256=sha256(export / NAMES[0]))]
    manifest = built(export, overlay(export, entries, [annotation(1, 1, [RING])], ["taping_area"]))
    rows = rows_of(manifest, "taping_area")
    assert len(manifest.table) == 3
    assert [rows[name].annotation_kind for name in NAMES] == ["polygon", "box", "box"]
    assert np.array_equal(stored(manifest, rows[NAMES[0]]), TRUTH)
    assert np.count_nonzero(stored(manifest, rows[NAMES[1]])) == 48
    (counts,) = manifest.info["summary"]["overlays"].values()
    assert counts["n_replaced"] == 1


def test_entries_find_their_image_under_another_name_in_another_export(export):
    entries = [image(i, sha256=sha256(export / NAMES[i - 1])) for i in (1, 3)]
    file = overlay(export, entries, [annotation(i, i, [RING]) for i in (1, 3)])
    other = export.parents[2] / "other" / "Drywall-Join-Detect.v9.coco" / "valid"
    other.mkdir(parents=True)
    renamed = ["x y.rf.ffff.jpg", "\u58992.jpg", "z.jpg"]
    for old, new in zip(NAMES, renamed, strict=True):
        shutil.copy(export / old, other / new)
    write_coco(other / "_annotations.coco.json", [image(i + 7, name) for i, name in enumerate(renamed)])
    rows = rows_of(built(other, file), "joint_line")
    assert sorted(rows) == sorted([renamed[0], renamed[2]])


def test_byte_equal_copies_all_match(export):
    shutil.copy(export / NAMES[0], export / NAMES[1])
    entries = [image(1, sha256=sha256(export / NAMES[0]))]
    manifest = built(export, overlay(export, entries, [annotation(1, 1, [RING])]))
    rows = rows_of(manifest, "joint_line")
    assert sorted(rows) == NAMES[:2]
    assert all(np.array_equal(stored(manifest, row), TRUTH) for row in rows.values())
    counts = {"n_matched": 1, "n_unmatched": 0, "n_added": 2, "n_replaced": 0}
    assert list(manifest.info["summary"]["overlays"].values()) == [counts]


def test_unmatched_entries_are_counted_and_no_error(export):
    entries = [image(i, sha256=f"{i:064x}", size_hw=(999, 999)) for i in (1, 2)]
    entries.append(image(3, sha256=sha256(export / NAMES[0])))
    manifest = built(export, overlay(export, entries, [annotation(i, i, [RING]) for i in (1, 2, 3)]))
    counts = {"n_matched": 1, "n_unmatched": 2, "n_added": 1, "n_replaced": 0}
    assert list(manifest.info["summary"]["overlays"].values()) == [counts]
    assert len(manifest.table) == 4


@pytest.mark.parametrize(
    ("names", "more", "label"),
    [
        (["joint_line"], {}, "joint_line"),
        (["taping_area"], {}, "taping_area"),
        (["joint_line", "taping_area"], {"label": "taping_area"}, "taping_area"),
        ([], {"label": "crack"}, "crack"),
    ],
)
def test_an_entry_without_annotations_means_an_empty_mask(export, names, more, label):
    entry = image(1, sha256=sha256(export / NAMES[0]), **more)
    manifest = built(export, overlay(export, [entry], [], names))
    row = rows_of(manifest, label)[NAMES[0]]
    assert (row.annotation_kind, row.mask_area) == ("none", 0)
    assert stored(manifest, row).shape == (24, 32) and not stored(manifest, row).any()


def test_one_entry_may_hold_several_labels(export):
    entry = image(1, sha256=sha256(export / NAMES[0]))
    items = [annotation(1, 1, [RING], category_id=1), annotation(2, 1, bbox=(0, 0, 2, 2), category_id=2)]
    manifest = built(export, overlay(export, [entry], items, ["joint_line", "taping_area"]))
    assert rows_of(manifest, "joint_line")[NAMES[0]].mask_area == np.count_nonzero(TRUTH)
    assert rows_of(manifest, "taping_area")[NAMES[0]].mask_area == 4


def test_of_two_overlays_the_later_wins_and_those_beside_the_data_come_first(export):
    entry = image(1, sha256=sha256(export / NAMES[0]))
    first, second = (
        overlay(export, [entry], [annotation(1, 1, bbox=(0, 0, n, 1))], file_name=f"{n}.coco.json") for n in (5, 3)
    )
    for files, area in (((first, second), 3), ((second, first), 5)):
        assert rows_of(built(export, *files), "joint_line")[NAMES[0]].mask_area == area
    shutil.move(second, export.parents[1] / "beside.coco.json")
    assert rows_of(built(export), "joint_line")[NAMES[0]].mask_area == 3
    assert rows_of(built(export, first), "joint_line")[NAMES[0]].mask_area == 5


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    ("entry", "names", "message"),
    [
        ({"sha256": None}, ["joint_line"], "its sha256 is None"),
        ({"sha256": 12}, ["joint_line"], "its sha256 is 12"),
        ({"size_hw": (24, 31)}, ["joint_line"], r"size \(24, 31\) is not that of Drywall-Join-Detect.coco/train/1_jpg"),
        ({"size_hw": (32, 24)}, ["joint_line"], r"size \(32, 24\)"),
        ({}, ["seam"], "category 'seam' is not a label"),
    ],
)
@pytest.mark.parametrize("annotated", [True, False])
def test_what_does_not_fit_is_refused_with_file_id_and_value(export, entry, names, message, annotated):
    entry = image(31, **{"sha256": sha256(export / NAMES[0]), **entry})
    file = overlay(export, [entry], [annotation(1, 31, [RING])] if annotated else [], names)
    with pytest.raises(DataError, match=f"{file}: image 31 .*{message}"):
        built(export, file)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize("more", [{}, {"label": ["crack"]}, {"label": None}, {"label": "seam"}])
def test_an_entry_without_annotations_whose_label_is_not_known_is_refused(export, more):
    entry = image(31, sha256=sha256(export / NAMES[0]), **more)
    with pytest.raises(DataError, match="image 31 .* is not a label"):
        built(export, overlay(export, [entry], [], ["joint_line", "crack"]))


@pytest.mark.fault("COCO", REFUSED)
def test_a_missing_sha256_and_a_broken_annotation_are_refused(export):
    with pytest.raises(DataError, match="image 31 .*its sha256 is None"):
        built(export, overlay(export, [image(31)]))
    file = overlay(export, [image(31, sha256=sha256(export / NAMES[0]))], [annotation(8, 31, [[1, 2, 3]])])
    with pytest.raises(DataError, match=f"{file}: image 31 .*annotation 8"):
        built(export, file)
    file.write_text(json.dumps([]))
    with pytest.raises(DataError, match=f"{file}: not COCO"):
        built(export, file)


def test_two_overlays_of_one_name_are_counted_apart(export):
    first = overlay(export, [image(1, sha256=sha256(export / NAMES[0]))], [annotation(1, 1, [RING])])
    (first.parent / "more").mkdir()
    second = first.parent / "more" / first.name
    second.write_text(first.read_text().replace(sha256(export / NAMES[0]), "0" * 64))
    counts = built(export, first, second).info["summary"]["overlays"]
    assert [(name, entry["n_matched"]) for name, entry in counts.items()] == [
        (first.name, 1),
        (f"more/{first.name}", 0),
    ]
