import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drywall_seg import runs
from drywall_seg.config import resolve_config
from drywall_seg.data import manifest as manifest_module
from drywall_seg.data import overlays as overlays_module
from drywall_seg.data.coco import DataError
from drywall_seg.data.manifest import COLUMNS, build_manifest, narrow, photo_id, prepare
from tests.data.exports import annotation, coco_truth, contents, image, rle, snapshot, write_coco, write_export

RING = [2, 2, 28, 4, 12, 20]
BLOB = np.zeros((24, 32), bool)
BLOB[3:9, 4:20] = True


@pytest.fixture
def data_root(tmp_path):
    """Two exports, three parts and an overlay: ten images of nine photographs."""
    root = tmp_path / "in" / "raw"
    cracks = [image(i, f"wall{i // 2}_jpg.rf.{i:04x}.jpg") for i in (4, 5, 8, 10)]
    write_export(root / "cracks.coco", cracks, [annotation(i, i, [RING]) for i in (4, 5, 8)])
    write_export(root / "cracks.coco", [image(1, size_hw=(20, 10))], [annotation(1, 1, bbox=(5, 5, 9, 9))], "valid")
    write_export(root / "cracks.coco", [image(2)], [annotation(1, 2, rle(BLOB)), annotation(2, 2, [RING])], "test")
    joints = [image(i) for i in (20, 21, 22)]
    write_export(root / "deep" / "Drywall-Join-Detect.coco", joints, [annotation(i, i) for i in (20, 21, 22)])
    write_export(root / "deep" / "Drywall-Join-Detect.coco", [image(23)], [annotation(1, 23)], "valid")
    add_overlay(
        root / "joints.coco.json", root / "deep" / "Drywall-Join-Detect.coco" / "train" / joints[0]["file_name"]
    )
    return root


def add_overlay(path, *image_files, ring=RING):
    entries = [
        image(i, file.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest()) for i, file in enumerate(image_files)
    ]
    items = [annotation(i, i, [ring]) for i in range(len(entries))]
    return write_coco(path, entries, items, [{"id": 1, "name": "joint_line"}])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "processed" / "raw"


@pytest.fixture
def images_read(monkeypatch):
    """The paths of the photos that were read."""
    paths = []
    read_image = manifest_module.read_image
    monkeypatch.setattr(manifest_module, "read_image", lambda path: paths.append(path) or read_image(path))
    return paths


# --- What a manifest says


def test_exports_and_overlays_are_merged_into_rows_with_these_columns(data_root, folder):
    manifest = build_manifest(data_root, folder)
    table = manifest.table
    assert list(table.columns) == COLUMNS
    assert COLUMNS == [
        *("image_id", "source", "photo_id", "label", "image_path", "mask_path"),
        *("width", "height", "annotation_kind", "mask_area", "split"),
    ]
    assert len(table) == 11 and table.image_id.nunique() == 10
    assert table.label.value_counts().to_dict() == {"crack": 6, "taping_area": 4, "joint_line": 1}
    row = table.set_index("image_id").loc["cracks.coco/test/2_jpg.rf.0002.jpg"].to_dict()
    assert row.pop("split") in ("train", "val", "test")
    assert row == {
        "source": "cracks.coco",
        "photo_id": "2_jpg",
        "label": "crack",
        "image_path": "cracks.coco/test/2_jpg.rf.0002.jpg",
        "mask_path": "masks/crack/cracks.coco/test/2_jpg.rf.0002.png",
        "width": 32,
        "height": 24,
        "annotation_kind": "mixed",
        "mask_area": coco_truth(data_root / "cracks.coco/test/_annotations.coco.json")["2_jpg.rf.0002.jpg"].sum(),
    }
    joint = table[table.label == "joint_line"].iloc[0]
    assert joint.image_path == "deep/Drywall-Join-Detect.coco/train/20_jpg.rf.0014.jpg"
    assert joint.image_id == "Drywall-Join-Detect.coco/train/20_jpg.rf.0014.jpg"
    assert joint.mask_path == "masks/joint_line/Drywall-Join-Detect.coco/train/20_jpg.rf.0014.png"
    empty = table[table.annotation_kind == "none"]
    assert empty.image_id.tolist() == ["cracks.coco/train/wall5_jpg.rf.000a.jpg"] and empty.mask_area.tolist() == [0]


def test_masks_are_pycocotools_rasterisation_in_the_images_own_size(data_root, folder):
    manifest = build_manifest(data_root, folder)
    for row in manifest.table.itertuples():
        image_file = manifest.image_file(row)
        file = image_file.parent / "_annotations.coco.json"
        truth = coco_truth(data_root / "joints.coco.json" if row.label == "joint_line" else file)[image_file.name]
        with Image.open(manifest.mask_file(row)) as mask, Image.open(image_file) as photo:
            assert mask.mode == "L" and mask.format == "PNG" and mask.size == photo.size == (row.width, row.height)
            assert np.array_equal(np.array(mask), np.where(truth, 255, 0))
        assert row.mask_area == truth.sum()
    assert set(contents(folder)) == {"manifest.csv", "manifest.json", *manifest.table.mask_path}


def test_the_stored_table_and_sidecar_are_what_was_returned(data_root, folder):
    made = build_manifest(data_root, folder)
    stored = build_manifest(data_root, folder)
    pd.testing.assert_frame_equal(stored.table, made.table, check_dtype=False)
    assert stored.info == made.info == json.loads((folder / "manifest.json").read_text())
    assert made.info["data_root"] == str(data_root) and len(made.info["fingerprint"]) == 64
    assert (made.info["settings"]["split"], made.info["settings"]["seed"]) == ("photo", 42)
    assert made.info["summary"] == {
        "n_images": 10,
        "n_degenerate_polygons": 0,
        "overlays": {"joints.coco.json": {"n_matched": 1, "n_unmatched": 0, "n_added": 1, "n_replaced": 0}},
    }
    train = made.rows("train")
    assert set(train.split) == {"train"} and list(train.index) == list(range(len(train)))


def test_degenerate_polygons_are_counted_in_the_summary(tmp_path, folder):
    items = [annotation(1, 1, [[1, 1, 5, 5]]), annotation(2, 1, [RING, [1, 1, 2, 2, 3, 3]]), annotation(3, 1)]
    write_export(tmp_path / "cracks.coco", [image(1)], items)
    manifest = build_manifest(tmp_path / "cracks.coco", folder)
    assert manifest.info["summary"]["n_degenerate_polygons"] == 2
    assert manifest.table.annotation_kind.tolist() == ["mixed"]


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("2416_jpg.rf.bf2b80646c006685.jpg", "2416_jpg"),
        ("IMG_1.2.3_JPG.rf.0123.jpg", "IMG_1.2.3_JPG"),
        ("photo.rf.one.rf.two.jpg", "photo"),
        ("site photo.jpg", "site photo"),
        ("a.b.c.png", "a.b.c"),
        ("no_suffix", "no_suffix"),
        (".hidden", ".hidden"),
        ("007.jpg", "007"),
        ("NA.jpg", "NA"),
        ("1e5.rf.a.jpg", "1e5"),
        ("Wand\u00fcberg\u00e4nge \u5899 \U0001f9f1.rf.1.jpg", "Wand\u00fcberg\u00e4nge \u5899 \U0001f9f1"),
        ('quote",comma.jpg', 'quote",comma'),
        ("trailing space .jpg", "trailing space "),
        ("a" * 190 + ".rf.1.jpg", "a" * 190),
    ],
)
def test_odd_file_names_keep_their_photograph_through_the_table(tmp_path, folder, name, photo):
    write_export(tmp_path / "in" / "cracks.coco", [image(1, name), image(2, "12")], [annotation(1, 1)])
    assert photo_id(name) == photo
    for _ in range(2):  # as made, then as read from the table
        manifest = build_manifest(tmp_path / "in", folder)
        row = manifest.table.iloc[0]
        assert (row.image_id, row.photo_id) == (f"cracks.coco/train/{name}", photo)
        assert row.image_path == f"cracks.coco/train/{name}" and manifest.image_file(row).is_file()
        assert manifest.mask_file(row).name == f"{Path(name).stem}.png"
        assert np.count_nonzero(np.array(Image.open(manifest.mask_file(row)))) == row.mask_area == 48


def test_the_data_root_may_be_an_export_itself_and_is_only_read(data_root, folder):
    before = snapshot(data_root.parent)
    manifest = build_manifest(data_root / "cracks.coco", folder)
    assert manifest.table.image_path.str.match(r"(train|valid|test)/[^/]+\.jpg").all()
    assert manifest.table.image_id.str.startswith("cracks.coco/").all()
    for split, seed in (("photo", 42), ("image", 42), ("publisher", 1)):
        build_manifest(data_root, folder, split, seed)
    assert snapshot(data_root.parent) == before


def test_the_label_of_an_unknown_export_is_the_callers(tmp_path, folder):
    write_export(tmp_path / "in" / "walls", [image(1)], [annotation(1, 1)])
    with pytest.raises(DataError, match="walls"):
        build_manifest(tmp_path / "in", folder)
    for label in ("crack", "taping_area"):
        manifest = build_manifest(tmp_path / "in", folder, labels={"walls": label})
        assert manifest.table.label.tolist() == [label]
        assert [name for name in contents(folder) if name.startswith("masks")] == manifest.table.mask_path.tolist()


def test_prepare_takes_the_configured_data_and_the_projects_overlays(tmp_path, data_root, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_run_all.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    joint = data_root / "deep/Drywall-Join-Detect.coco/train/21_jpg.rf.0015.jpg"
    add_overlay(tmp_path / "data" / "annotations" / "more.coco.json", joint)
    manifest = prepare(resolve_config(data_root="in/raw", split="image", seed=3))
    assert manifest.folder == tmp_path / "data" / "processed" / "raw"
    assert (manifest.info["settings"]["split"], manifest.info["settings"]["seed"]) == ("image", 3)
    assert (manifest.table.label == "joint_line").sum() == 2


# --- What cannot be used


def refused(root, folder):
    with pytest.raises(DataError) as caught:
        build_manifest(root, folder)
    assert not (folder / "manifest.json").exists() and not (folder / "manifest.csv").exists()
    return str(caught.value)


def test_all_missing_images_are_listed_at_once(data_root, folder):
    gone = ["cracks.coco/train/wall2_jpg.rf.0005.jpg", "cracks.coco/test/2_jpg.rf.0002.jpg"]
    gone.append("deep/Drywall-Join-Detect.coco/valid/23_jpg.rf.0017.jpg")
    for name in gone:
        (data_root / name).unlink()
    message = refused(data_root, folder)
    assert message.startswith("3 images are missing")
    for name, image_id in zip(gone, (5, 2, 23), strict=True):
        assert f"{data_root / name} (image {image_id} of {(data_root / name).parent}/_annotations.coco.json)" in message
    assert not folder.exists()


def test_an_image_of_another_size_than_its_json_says_is_refused(data_root, folder):
    file = data_root / "cracks.coco/valid/1_jpg.rf.0001.jpg"
    Image.new("RGB", (20, 10)).save(file)
    assert refused(data_root, folder) == f"{file}: image 1 is (10, 20) high and wide, its JSON says (20, 10)"


@pytest.mark.parametrize("kept", [0, 1, 300, -200])
def test_a_truncated_jpeg_is_refused(data_root, folder, kept):
    file = data_root / "cracks.coco/valid/1_jpg.rf.0001.jpg"
    file.write_bytes(file.read_bytes()[:kept])
    message = refused(data_root, folder)
    assert message.startswith(f"{file}: cannot be read as an image") and message.endswith("(image 1)")


@pytest.mark.parametrize(
    "item", [annotation(77, 4711), annotation(77, 4, bbox=(1, 2, "3", 4)), annotation(77, 4, rle(BLOB[:, 1:]))]
)
def test_a_broken_annotation_is_refused_with_its_file_and_id(data_root, folder, item):
    file = data_root / "cracks.coco/train/_annotations.coco.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "annotations": [*data["annotations"], item]}))
    message = refused(data_root, folder)
    assert str(file) in message and "annotation 77" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a/cracks.coco", "photo.jpg"), ("b/cracks.coco", "photo.jpg")),
        (("a/cracks.coco", "photo.jpg"), ("b/cracks.coco", "photo.png")),
        (("a/cracks.coco", "photo.jpg"), ("b/Cracks.coco", "PHOTO.jpg")),
        (("cracks.coco", "photo.jpg"), ("cracks.coco", "photo.png")),
        (("cracks.coco", "photo"), ("cracks.coco", "photo.jpg")),
    ],
)
def test_two_images_that_would_write_the_same_mask_are_refused(tmp_path, folder, first, second):
    root = tmp_path / "in"
    if first[0] == second[0]:
        write_export(root / first[0], [image(1, first[1]), image(2, second[1])])
    else:
        for name, file_name in (first, second):
            write_export(root / name, [image(1, file_name)])
    message = refused(root, folder)
    assert "would write the same mask file" in message
    assert all(str(root / name / "train" / file_name) in message for name, file_name in (first, second))


def test_one_file_name_in_two_parts_or_exports_is_no_conflict(tmp_path, folder):
    for name, part in (("cracks.coco", "train"), ("cracks.coco", "valid"), ("cracks-more.coco", "train")):
        write_export(tmp_path / "in" / name, [image(1, "photo.jpg")], part=part)
    assert build_manifest(tmp_path / "in", folder).table.mask_path.nunique() == 3


def test_exports_without_any_image_are_refused(tmp_path, folder):
    file = write_export(tmp_path / "cracks.coco", [])
    assert refused(tmp_path / "cracks.coco", folder) == f"{tmp_path / 'cracks.coco'}: no image in {file}"


# --- Running again


def test_unchanged_data_is_not_read_and_nothing_is_written(data_root, folder, images_read):
    build_manifest(data_root, folder)
    assert len(images_read) == 10
    before = snapshot(folder.parent)
    build_manifest(data_root, folder)
    assert len(images_read) == 10 and snapshot(folder.parent) == before


@pytest.mark.parametrize("change", [{"split": "publisher"}, {"split": "image"}, {"seed": 5}])
def test_another_split_only_assigns_anew(data_root, folder, images_read, change, tmp_path):
    build_manifest(data_root, folder)
    masks = snapshot(folder / "masks")
    changed = build_manifest(data_root, folder, **change)
    assert len(images_read) == 10 and snapshot(folder / "masks") == masks
    other = build_manifest(data_root, tmp_path / "other" / "raw", **change)
    assert contents(folder) == contents(other.folder)
    pd.testing.assert_frame_equal(changed.table, other.table, check_dtype=False)


class Stop(BaseException):
    pass


def stopping(function, at, calls):
    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise Stop
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (overlays_module, "write_mask"),
        (manifest_module, "apply_overlay"),
        (manifest_module, "assign_splits"),
        (manifest_module, "write_csv"),
        (manifest_module, "_remove_stale_masks"),
        (manifest_module, "write_json"),
        (runs.os, "replace"),  # written, and not yet renamed: at every file
    ],
)
@pytest.mark.parametrize("before", ["nothing", "other data", "other split"])
def test_stopped_at_any_point_and_run_again_is_as_undisturbed(data_root, folder, module, name, before, tmp_path):
    undisturbed = contents(build_manifest(data_root, tmp_path / "undisturbed" / "raw").folder)
    at, stopped = 1, True
    while stopped:
        shutil.rmtree(folder, ignore_errors=True)
        if before == "other data":
            build_manifest(data_root / "deep", folder)
        elif before == "other split":
            build_manifest(data_root, folder, "publisher")
        calls = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, stopping(getattr(module, name), at, calls))
            try:
                build_manifest(data_root, folder)
                stopped = False
            except Stop:
                assert not (folder / "manifest.json").exists()
        build_manifest(data_root, folder)
        assert contents(folder) == undisturbed
        at += 1
    n_files = 2 if before == "other split" else len(undisturbed)
    expected = {"write_mask": n_files - 2, "replace": n_files, "apply_overlay": int(n_files > 2)}
    assert at - 2 == expected.get(name, 1)


def test_what_a_killed_run_left_is_cleared_away(data_root, folder):
    build_manifest(data_root, folder)
    made = contents(folder)
    (folder / "manifest.json").unlink()
    (folder / "manifest.csv").write_text("image_id,spl")
    (folder / "masks/crack/cracks.coco/train/.partial-4194305-wall.png").write_bytes(b"\x89PNG")  # no process has it
    (folder / "masks/crack/cracks.coco/train/old.png").write_bytes(b"\x89PNG")
    build_manifest(data_root, folder)
    assert contents(folder) == made


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.json", "masks/crack/cracks.coco/test/2_jpg.rf.0002.png"])
def test_a_file_that_was_removed_is_made_again(data_root, folder, name):
    build_manifest(data_root, folder)
    made = contents(folder)
    (folder / name).unlink()
    build_manifest(data_root, folder)
    assert contents(folder) == made


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"settings": 5}'])
def test_a_sidecar_that_is_none_is_made_again(data_root, folder, text):
    build_manifest(data_root, folder)
    made = contents(folder)
    (folder / "manifest.json").write_text(text)
    build_manifest(data_root, folder)
    assert contents(folder) == made


def change_annotation(root):
    file = root / "cracks.coco/train/_annotations.coco.json"
    data = json.loads(file.read_text())
    data["annotations"][0]["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    file.write_text(json.dumps(data))


def remove_image(root):
    write_coco(root / "cracks.coco/test/_annotations.coco.json", [image(3)])
    (root / "cracks.coco/test/2_jpg.rf.0002.jpg").rename(root / "cracks.coco/test/3_jpg.rf.0003.jpg")


def remove_overlay(root):
    (root / "joints.coco.json").unlink()


def remove_export(root):
    shutil.rmtree(root / "deep")


def change_pixels(root):
    Image.new("RGB", (32, 24), "red").save(root / "cracks.coco/test/2_jpg.rf.0002.jpg")


def change_overlay(root):
    joint = root / "deep/Drywall-Join-Detect.coco/train/20_jpg.rf.0014.jpg"
    add_overlay(root / "joints.coco.json", joint, ring=[0, 0, 9, 0, 9, 9])


def swap_images(root):
    one, two = (root / "cracks.coco/train" / f"wall2_jpg.rf.{i:04x}.jpg" for i in (4, 5))
    one.rename(root / "kept"), two.rename(one), (root / "kept").rename(two)


CHANGES = [swap_images, change_annotation, remove_image, remove_overlay, remove_export, change_pixels, change_overlay]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_is_built_anew_and_stale_masks_go(data_root, folder, change, tmp_path):
    fingerprint = build_manifest(data_root, folder).info["fingerprint"]
    change(data_root)
    rebuilt = build_manifest(data_root, folder)
    assert contents(folder) == contents(build_manifest(data_root, tmp_path / "fresh" / "raw").folder)
    assert rebuilt.info["fingerprint"] != fingerprint


def test_another_data_root_of_the_same_name_is_built_anew(data_root, folder, tmp_path, images_read):
    build_manifest(data_root, folder)
    other_root = tmp_path / "elsewhere" / "raw"
    shutil.copytree(data_root, other_root)  # times are kept
    other = build_manifest(other_root, folder)
    assert len(images_read) == 20
    assert other.info["data_root"] == json.loads((folder / "manifest.json").read_text())["data_root"] == str(other_root)
    assert all(other_root in other.image_file(row).parents for row in other.table.itertuples())


def test_a_relative_data_root_is_recorded_as_an_absolute_one(data_root, folder, monkeypatch, images_read):
    monkeypatch.chdir(data_root.parent)
    assert build_manifest(Path("raw"), folder).info["data_root"] == str(data_root)
    build_manifest(data_root, folder)
    assert len(images_read) == 10


def test_the_fingerprint_depends_on_contents_alone(data_root, folder, tmp_path):
    made = build_manifest(data_root, folder)
    moved = tmp_path / "moved" / "elsewhere"
    shutil.copytree(data_root, moved)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    again = build_manifest(moved, tmp_path / "processed" / "elsewhere", "image", 7)
    assert again.info["fingerprint"] == made.info["fingerprint"]
    assert again.info["state"] != made.info["state"]
    # An overlay counts alike wherever it lies, and once.
    given = build_manifest(data_root, folder, overlays=[moved / "joints.coco.json"])
    (moved / "joints.coco.json").unlink()
    apart = build_manifest(moved, tmp_path / "processed" / "elsewhere", overlays=[data_root / "joints.coco.json"])
    assert given.info["fingerprint"] == apart.info["fingerprint"] == made.info["fingerprint"]
    assert given.info["summary"] == apart.info["summary"] == made.info["summary"]


def test_touched_files_are_read_again_and_give_the_same(data_root, folder, images_read):
    made = build_manifest(data_root, folder)
    files = contents(folder)
    os.utime(data_root / "cracks.coco/test/2_jpg.rf.0002.jpg", (1, 1))
    again = build_manifest(data_root, folder)
    assert len(images_read) == 20
    assert again.info["fingerprint"] == made.info["fingerprint"]
    assert {n: c for n, c in contents(folder).items() if n != "manifest.json"} == {
        n: c for n, c in files.items() if n != "manifest.json"
    }


def test_a_narrowed_manifest_has_one_label_and_no_shared_photograph(sample_root, folder):
    whole = build_manifest(sample_root, folder, split="publisher")
    stored = contents(folder)
    held_out = set(whole.table.photo_id[whole.table.split != "train"])
    shared = whole.rows("train").photo_id.isin(held_out)
    assert shared.any() and not shared.all()
    clean = narrow(whole, None, drop_shared=True, score_known=False)
    assert set(clean.rows("train").image_id) == set(whole.rows("train").image_id[~shared])
    for split in ("val", "test"):
        assert clean.rows(split).equals(whole.rows(split))
    cracks = narrow(whole, "crack", drop_shared=False, score_known=True)
    assert cracks.table.equals(whole.table[whole.table.label == "crack"].reset_index(drop=True))
    assert cracks.score_known and not clean.score_known
    assert narrow(whole, None, False, False).table.equals(whole.table)
    assert contents(folder) == stored
