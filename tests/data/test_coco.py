import json
import math
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from drywall_seg.data.coco import DataError, Export, find_exports, rasterise, read_coco
from drywall_seg.data.manifest import build_manifest
from tests.data.exports import annotation, coco_truth, contents, image, rle, write_coco, write_export
from tests.faults.table import READ, REFUSED

TRIANGLE = [2, 2, 28, 4, 12, 20]
RING = [20, 10, 30, 10, 30, 22, 20, 22]
BLOB = np.zeros((24, 32), bool)
BLOB[3:9, 4:20] = BLOB[15, 7] = True


# --- Which exports there are


def test_exports_are_found_in_the_folder_itself_and_two_levels_below_it(tmp_path):
    deep = tmp_path / "data" / "raw" / "Drywall-Join-Detect.v1.coco"
    near = tmp_path / "data" / "cracks.coco"
    for folder in (deep, near):
        write_export(folder, [image(1)], part="valid")
    assert find_exports(tmp_path / "data") == [Export(near, "crack"), Export(deep, "taping_area")]
    assert find_exports(near) == [Export(near, "crack")]
    assert [f.parent.name for f in find_exports(near)[0].annotation_files] == ["valid"]


def test_label_is_told_by_the_caller_or_by_the_folders_name(tmp_path):
    write_export(tmp_path / "walls", [image(1)])
    with pytest.raises(DataError, match=r"walls: 'walls' goes with no label .*cracks\* is crack"):
        find_exports(tmp_path)
    assert find_exports(tmp_path, {"walls": "taping_area"})[0].label == "taping_area"
    with pytest.raises(DataError, match="walls: 'wall' goes with no label"):
        find_exports(tmp_path, {"walls": "wall"})
    write_export(tmp_path / "CRACKS-more.coco", [image(1)])
    assert find_exports(tmp_path, {"walls": "crack", "CRACKS-more.coco": "joint_line"})[0].label == "joint_line"
    assert find_exports(tmp_path, {"walls": "crack"})[0].label == "crack"


def test_a_folder_without_exports_is_refused(tmp_path):
    write_export(tmp_path / "cracks.coco", [image(1)], part="train-old")
    with pytest.raises(DataError, match=f"{tmp_path}: no COCO export in it"):
        find_exports(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_exports(tmp_path / "nowhere")


def test_hidden_folders_are_no_exports(tmp_path):
    write_export(tmp_path / "cracks.coco", [image(1)])
    write_export(tmp_path / ".partial-17-cracks.coco", [image(1)])
    assert [e.folder.name for e in find_exports(tmp_path)] == ["cracks.coco"]


# --- What a file says


def test_images_keep_their_order_and_annotations(tmp_path):
    file = write_export(tmp_path, [image(7), image(3)], [annotation(1, 3), annotation(5, 7), annotation(2, 3)])
    images, categories = read_coco(file)
    assert [(i.entry["id"], i.size_hw, [a["id"] for a in i.annotations]) for i in images] == [
        (7, (24, 32), [5]),
        (3, (24, 32), [1, 2]),
    ]
    assert categories == {0: "crack", 1: "NewCracks - v2"}


GOOD = {"images": [image(1)], "annotations": [annotation(9, 1)], "categories": [{"id": 1, "name": "c"}]}


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2, math.nan, 4],
        [1, 2, math.inf, 4],
        [-math.inf, 2, 3, 4],
        [1, 2, "3", 4],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, True, 4],
        [1, 2, None, 4],
        [10**400, 2, 3, 4],
        [[1], 2, 3, 4],
        [],
        None,
        "1234",
        {"x": 1},
        5,
    ],
    ids=repr,
)
def test_a_bbox_that_is_not_four_finite_numbers_is_refused(tmp_path, bbox):
    file = write_coco(tmp_path / "c.json", [image(1)], [annotation(8, 1), {**annotation(9, 1), "bbox": bbox}])
    with pytest.raises(DataError) as caught:
        read_coco(file)
    # A long value is cut.
    assert str(caught.value) == f"{file}: annotation 9: bbox {bbox!r:.120} is not four finite numbers"


@pytest.mark.fault("COCO", REFUSED)
def test_a_missing_bbox_is_refused(tmp_path):
    item = annotation(9, 1)
    del item["bbox"]
    with pytest.raises(DataError, match="annotation 9: bbox None"):
        read_coco(write_coco(tmp_path / "c.json", [image(1)], [item]))


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [annotation(9, 4711)]}, "annotation 9: its image 4711 is not in the file"),
        ({"annotations": [annotation(9, [1])]}, r"annotation 9: its image \[1\]"),
        ({"annotations": [annotation(9, 1, category_id=5)]}, "annotation 9: its category 5 is not in the file"),
        ({"categories": [{"id": [1]}, {"name": "c"}]}, "annotation 9: its category 1 is not in the file"),
        ({"images": [image(1), image(1, "b.jpg")]}, "image id 1 .* comes twice"),
        ({"images": [image(1), image(2, image(1)["file_name"])]}, "image id 2 .* comes twice"),
        ({"images": [{"file_name": "a.jpg"}]}, "without id or file_name.*a.jpg"),
        ({"images": [{**image(1), "id": "1"}]}, "without id or file_name"),
        ({"images": [{**image(1), "file_name": None}]}, "without id or file_name"),
        ({"images": [{**image(1), "width": 0}]}, "image 1 .*width 0 is not a size"),
        ({"images": [{**image(1), "height": -24}]}, "image 1 .*height -24 is not a size"),
        ({"images": [{**image(1), "height": "24"}]}, "image 1 .*height '24' is not a size"),
        ({"images": [{**image(1), "width": 10**9}]}, "image 1 .*width 1000000000 is not a size"),
        ({"images": {"1": image(1)}}, "not COCO, 'images' is not a list"),
        ({"images": [1]}, "not COCO, 'images' is not a list"),
        ({"annotations": None}, "not COCO, 'annotations' is not a list"),
        ({"categories": "crack"}, "not COCO, 'categories' is not a list"),
    ],
)
def test_what_is_not_coco_is_refused_with_file_id_and_value(tmp_path, change, message):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(DataError, match=message) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_key_is_refused(tmp_path, key):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({k: v for k, v in GOOD.items() if k != key}))
    with pytest.raises(DataError, match=f"{file}: not COCO, '{key}'"):
        read_coco(file)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"images"',
        json.dumps(GOOD).encode("utf-16"),
        json.dumps(GOOD, ensure_ascii=False).replace("name", "n\u00e4me").encode("latin-1"),
        json.dumps(GOOD)[:-1].encode(),
        b'{"images": ' + b"[" * 100_000,
        b'{"images": [{"id": ' + b"9" * 5000 + b"}]}",
        b"\x89PNG\r\n",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_not_json_is_refused_with_the_file(tmp_path, text):
    file = tmp_path / "c.json"
    file.write_bytes(text)
    with pytest.raises(DataError, match=f"^{file}: not (JSON|COCO)"):
        read_coco(file)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a.jpg", "/etc/a.jpg", "b/a.jpg", "b\\a.jpg", "a\0.jpg", "a\n.jpg", "\ud800.jpg", "a" * 201],
)
def test_a_file_name_that_could_leave_its_folder_or_be_no_file_is_refused(tmp_path, name):
    file = write_coco(tmp_path / "c.json", [image(1) | {"file_name": name}])
    with pytest.raises(DataError, match="image 1: file name .* is not a plain name"):
        read_coco(file)


# --- Masks, by hand


def drawn(*annotations, size_hw=(4, 4)):
    result = rasterise(annotations, size_hw, "c.json: image 1")
    assert result.mask.dtype == np.uint8 and set(np.unique(result.mask)) <= {0, 255}
    return (result.mask // 255).tolist(), result.kind, result.n_degenerate


LEFT_HALF = [[1, 1, 0, 0]] * 4
EMPTY = [[0, 0, 0, 0]] * 4
CORNER = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
BOTH = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
LEFT_RING, CORNER_RING = [0, 0, 2, 0, 2, 4, 0, 4], [2, 2, 4, 2, 4, 4, 2, 4]
LEFT_BOX, CORNER_BOX = (0, 0, 2, 4), (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("annotations", "mask", "kind"),
    [
        ([], EMPTY, "none"),
        ([annotation(1, 1, [LEFT_RING])], LEFT_HALF, "polygon"),
        ([annotation(1, 1, [LEFT_RING, CORNER_RING])], BOTH, "polygon"),
        ([annotation(1, 1, [LEFT_RING]), annotation(2, 1, [CORNER_RING])], BOTH, "polygon"),
        ([annotation(1, 1, [LEFT_RING]), annotation(2, 1, [], CORNER_BOX)], BOTH, "mixed"),
        ([annotation(1, 1, [], LEFT_BOX)], LEFT_HALF, "box"),
        ([annotation(1, 1, [], (-3, -2, 5, 99))], LEFT_HALF, "box"),
        ([annotation(1, 1, [], (2, 2, 3, 3))], CORNER, "box"),
        ([annotation(1, 1, [], (2, 2, 1e308, 1e308))], CORNER, "box"),
        ([annotation(1, 1, [], (-1e300, -1e300, 2e300, 2e300))], [[1] * 4] * 4, "box"),
        ([annotation(1, 1, [], (4, 0, 2, 2))], EMPTY, "box"),
        ([annotation(1, 1, rle(np.array(CORNER)))], CORNER, "rle"),
        ([annotation(1, 1, rle(np.array(CORNER), compressed=False))], CORNER, "rle"),
        ([annotation(1, 1, {"size": [4, 4], "counts": [0, 8, 8]})], LEFT_HALF, "rle"),
        ([annotation(1, 1, rle(np.array(CORNER)), iscrowd=1)], CORNER, "rle"),
        ([annotation(1, 1, {"size": [4, 4], "counts": [0, 8, 8]}, iscrowd=1)], LEFT_HALF, "rle"),
        ([annotation(1, 1, [LEFT_RING], iscrowd=1)], LEFT_HALF, "polygon"),
        ([annotation(1, 1, rle(np.array(CORNER))), annotation(2, 1, [LEFT_RING])], BOTH, "mixed"),
        ([annotation(1, 1, rle(np.array(CORNER))), annotation(2, 1, [], LEFT_BOX)], BOTH, "mixed"),
        ([annotation(1, 1, [[0, 0, 9, 0, 9, 9, 0, 9]], CORNER_BOX)], [[1] * 4] * 4, "polygon"),
    ],
)
def test_masks_worked_by_hand(annotations, mask, kind):
    assert drawn(*annotations) == (mask, kind, 0)


@pytest.mark.fault("COCO", READ)
@pytest.mark.parametrize(
    ("ring", "kind"),
    [
        ([], "box"),
        ([1, 1], "box"),
        ([0, 0, 2, 4], "box"),  # two points; pycocotools would take it for a box
        ([0, 0, 2, 2, 4, 4], "box"),  # three on one line
        ([1.1, 1.2, 1.1, 3.7, 1.1, 2.0], "box"),
        ([3, 3, 3, 3, 3, 3, 3, 3], "box"),
        ([0.1, 0.3, 0.2, 0.6, 0.4, 1.2, 0.3, 0.9], "box"),
    ],
)
def test_a_degenerate_ring_falls_back_to_its_box_and_is_counted(ring, kind):
    assert drawn(annotation(1, 1, [ring], LEFT_BOX)) == (LEFT_HALF, kind, 1)
    assert drawn(annotation(1, 1, [ring, CORNER_RING], LEFT_BOX)) == (CORNER, "polygon", 1)


def test_a_figure_of_eight_is_no_degenerate_ring():
    eight = [2, 2, 28, 20, 28, 2, 2, 20]  # its halves' signed areas cancel out
    mask, kind, n_degenerate = drawn(annotation(1, 1, [eight], (0, 0, 32, 24)), size_hw=(24, 32))
    expected = coco_mask.decode(coco_mask.frPyObjects([eight], 24, 32))[..., 0]
    assert (mask, kind, n_degenerate) == (expected.tolist(), "polygon", 0)
    assert 0 < expected.mean() < 0.6


def test_a_missing_segmentation_is_an_empty_one():
    item = annotation(1, 1, bbox=LEFT_BOX)
    del item["segmentation"]
    assert drawn(item) == drawn({**item, "segmentation": None}) == (LEFT_HALF, "box", 0)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    ("segmentation", "value"),
    [
        ("polygon", "'polygon'"),
        (5, "5"),
        ([1, 2, 3, 4, 5, 6], "1"),
        ([[1, 2, 3]], r"\[1, 2, 3\]"),
        ([[0, 0, math.nan, 0, 1, 1]], "nan"),
        ([[0, 0, 10**400, 0, 1, 1]], "100000"),
        ([[0, 0, "1", 0, 1, 1]], "'1'"),
        ([[0, 0, 1e6, 0, 1, 1]], "1000000.0 lies far outside"),
        ({"size": [4, 5], "counts": [20]}, r"RLE size \[4, 5\]"),
        ({"counts": [16]}, "RLE size None"),
        ({"size": [4, 4]}, "RLE counts None"),
        ({"size": [4, 4], "counts": [15]}, r"RLE counts \[15\]"),
        ({"size": [4, 4], "counts": [17, -1]}, r"RLE counts \[17, -1\]"),
        ({"size": [4, 4], "counts": [8.0, 8.0]}, "RLE counts"),
        ({"size": [4, 4], "counts": [2**32, 16]}, "RLE counts"),
        ({"size": [4, 4], "counts": ""}, "RLE counts ''"),
        ({"size": [4, 4], "counts": "8"}, "RLE counts '8'"),  # 8 pixels of 16
        ({"size": [4, 4], "counts": "\u00e9"}, "RLE counts"),
        ({"size": [4, 4], "counts": "0X" + "P" * 8 + "08"}, "RLE counts"),  # 8 as a number of ten characters
        ({"size": [4, 4], "counts": "088o"}, "RLE counts"),  # one that the text's end cuts off
    ],
)
def test_a_broken_segmentation_is_refused_with_file_id_and_value(segmentation, value):
    with pytest.raises(DataError, match=f"c.json: image 1: annotation 9: .*{value}"):
        rasterise([{**annotation(9, 1), "segmentation": segmentation}], (4, 4), "c.json: image 1")


def test_the_size_of_an_rle_may_be_written_as_floats():
    assert drawn(annotation(1, 1, {"size": [4.0, 4.0], "counts": [0, 8, 8]}))[0] == LEFT_HALF


# --- Masks, against pycocotools and Pillow


@pytest.mark.parametrize("ring", [TRIANGLE, RING, [5.5, 1.2, 31.9, 7.3, 18.4, 23.1, 3.3, 17.7]])
def test_masks_agree_with_pillow(ring):
    size, scale = (240, 320), 8
    ring = [10 * value for value in ring]
    mask = rasterise([annotation(1, 1, [ring])], size, "").mask > 0
    canvas = Image.new("1", (size[1] * scale, size[0] * scale))
    ImageDraw.Draw(canvas).polygon([scale * value for value in ring], fill=1)
    other = np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale]
    assert mask.sum() > 500
    assert (mask & other).sum() / (mask | other).sum() > 0.98


def polygon_area(ring):
    points = list(zip(ring[::2], ring[1::2], strict=True))
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(points, points[1:] + points[:1], strict=True))) / 2


tenths = st.integers(-50, 500).map(lambda value: value / 10)
rings = st.integers(3, 7).flatmap(lambda n: st.lists(tenths, min_size=2 * n, max_size=2 * n))
boxes = st.tuples(tenths, tenths, tenths.map(abs), tenths.map(abs))


@st.composite
def annotations_of(draw, image_id, size_hw):
    kind = draw(st.sampled_from(["polygon", "box", "compressed", "uncompressed"]))
    if kind == "polygon":
        some = draw(st.lists(rings.filter(lambda ring: polygon_area(ring) > 0.1), min_size=1, max_size=3))
        return annotation(0, image_id, some, draw(boxes), draw(st.integers(0, 1)))
    if kind == "box":
        return annotation(0, image_id, [], draw(boxes))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).random(size_hw) < draw(st.sampled_from([0, 0.1, 0.9, 1]))
    return annotation(0, image_id, rle(pixels, kind == "compressed"), draw(boxes), iscrowd=1)


@st.composite
def exports(draw):
    images, annotations = [], []
    for image_id in draw(st.lists(st.integers(0, 10**12), min_size=1, max_size=3, unique=True)):
        size_hw = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        images.append(image(image_id, size_hw=size_hw))
        annotations += draw(st.lists(annotations_of(image_id, size_hw), max_size=3))
    draw(st.randoms()).shuffle(annotations)
    for number, item in enumerate(annotations):
        item["id"] = 3 * number
    return images, annotations


@settings(max_examples=100, deadline=timedelta(seconds=5))
@given(exports())
def test_every_valid_export_parses_and_equals_pycocotools(export):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = write_export(root / "data" / "cracks.coco", *export)
        truth = coco_truth(file)
        manifest = build_manifest(root / "data", root / "manifest")
        assert len(manifest.table) == len(truth) == len(export[0])
        for row in manifest.table.itertuples():
            with Image.open(manifest.mask_file(row)) as mask:
                assert mask.mode == "L" and mask.size == (row.width, row.height)
                pixels = np.array(mask)
            expected = truth[Path(row.image_path).name]
            assert np.array_equal(pixels, expected * np.uint8(255))
            assert row.mask_area == expected.sum()


# --- Broken files, at random

ODD_VALUES = [None, True, False, -1, 0, 1, 10**400, -(10**400), 1.5, 1e308, -1e308, math.nan, math.inf]
ODD_VALUES += ["", "x", "../../evil.jpg", "\u00e9" * 300, "\ud800", [], [[]], {}, [1, 2, 3], {"size": [24, 32]}]


def places(value, path=()):
    """The paths of all keys and list items in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from places(child, (*path, key))


def broken(data, path, odd_value, delete):
    data = json.loads(json.dumps(data))
    *way, last = path
    parent = data
    for key in way:
        parent = parent[key]
    if delete:
        del parent[last]
    else:
        parent[last] = odd_value
    return data


RICH = {
    "images": [image(1), image(2), image(3)],
    "annotations": [
        annotation(1, 1, [TRIANGLE, RING]),
        annotation(2, 1, []),
        annotation(3, 2, rle(BLOB), iscrowd=1),
        annotation(4, 2, rle(BLOB, compressed=False)),
    ],
    "categories": [{"id": 0, "name": "crack"}, {"id": 1, "name": "crack"}],
}


@settings(max_examples=200, deadline=timedelta(seconds=5))
@given(st.sampled_from(list(places(RICH))), st.sampled_from(ODD_VALUES), st.booleans(), st.booleans())
def test_a_broken_export_parses_or_is_refused_and_writes_nowhere_else(path, odd_value, delete, as_overlay):
    data = broken(RICH, path, odd_value, delete)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        file = write_export(root / "cracks.coco", RICH["images"], RICH["annotations"])
        (root / "overlay.coco.json" if as_overlay else file).write_text(json.dumps(data))
        before = contents(root)
        try:
            manifest = build_manifest(root, Path(folder) / "out" / "manifest")
        except DataError as error:
            assert str(root) in str(error)
        else:
            assert all(manifest.mask_file(row).is_file() for row in manifest.table.itertuples())
        assert contents(root) == before
        assert {p.name for p in Path(folder).iterdir()} <= {"in", "out"}
        assert {p.name for p in Path(folder).glob("out/*")} <= {"manifest"}
