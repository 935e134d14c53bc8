"""Annotations of nonsense: an export is refused in one line that names file and value, or its masks are right."""

import json
import os
from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drywall_seg.data.coco import DataError, rasterise, read_coco
from drywall_seg.data.manifest import build_manifest
from drywall_seg.images import read_mask
from tests.data.exports import annotation, contents, image, rle, write_export
from tests.data.test_coco import BLOB, ODD_VALUES, RICH, places
from tests.faults.table import READ, REFUSED

SIZE = (24, 32)
LEFT_HALF = np.zeros(SIZE, bool)
LEFT_HALF[:, :16] = True
RING, BOX = [0, 0, 16, 0, 16, 24, 0, 24], (0, 0, 16, 24)
NAME = image(1)["file_name"]


def with_image(**changes):
    return {"images": [image(1) | changes]}


def with_annotation(**changes):
    return {"annotations": [annotation(9, 1, [RING], BOX) | changes]}


def with_rle(counts, size=SIZE):
    return with_annotation(segmentation={"size": list(size), "counts": counts})


REFUSED_EXPORTS = {
    "no image at all": ({"images": [], "annotations": []}, "no image in .*_annotations.coco.json"),
    "true for an id": (with_image(id=True), "without id or file_name"),
    "a fraction for an id": (with_image(id=1.5), "without id or file_name"),
    "true for a size": (with_image(height=True), "image 1 .*: height True is not a size"),
    "a size of 2 GB": (with_image(width=2**31), "image 1 .*: width 2147483648 is not a size"),
    "a size as a fraction": (with_image(width=32.5), "width 32.5 is not a size"),
    "another size than the image's": (with_image(width=33), r"image 1 is \(24, 32\) high and wide, its JSON says"),
    "an image that is not there": (with_image(file_name="gone.jpg"), "1 images are missing"),
    "a name with NUL": (with_image(file_name="a\0.jpg"), "is not a plain name"),
    "a name that leads out": (with_image(file_name="../../a.jpg"), "is not a plain name"),
    "an absolute name": (with_image(file_name="/etc/passwd"), "is not a plain name"),
    "a name that is a folder": (with_image(file_name="."), "is not a plain name"),
    "the annotations for an image": (with_image(file_name="_annotations.coco.json"), "cannot be read as an image"),
    "an annotation of no image": (with_annotation(image_id=None), "annotation 9: its image None"),
    "an annotation of image true": (with_annotation(image_id=True), "annotation 9: its image True"),
    "a category of another file": (with_annotation(category_id=2**31), "its category 2147483648 is not in the file"),
    "a category of 100 KB": (with_annotation(category_id="x" * 100_000), "its category 'xxxx"),
    "a box of minus infinity": (with_annotation(bbox=[0, 0, 9, float("-inf")]), "is not four finite numbers"),
    "a box of a negative width": (with_annotation(bbox=[9, 0, -4, 5], segmentation=[]), "has a negative side"),
    "a box of a negative height": (with_annotation(bbox=[9, 9, 4, -5], segmentation=[[1, 1]]), "has a negative side"),
    "NaN for a coordinate": (with_annotation(segmentation=[[0, 0, 9, float("nan"), 9, 9]]), "is not a list of x, y"),
    "infinity for a coordinate": (with_annotation(segmentation=[[0, 0, 9, float("inf"), 9, 9]]), "not a list of x, y"),
    "text for a coordinate": (with_annotation(segmentation=[[0, 0, "9", 0, 9, 9]]), "is not a list of x, y"),
    "true for a coordinate": (with_annotation(segmentation=[[0, 0, True, 0, 9, 9]]), "is not a list of x, y"),
    "a coordinate a gigapixel away": (with_annotation(segmentation=[[0, 0, 10**9, 0, 9, 9]]), "lies far outside"),
    "rings in rings": (with_annotation(segmentation=[[RING]]), "is not a list of x, y"),
    "run lengths of another size": (with_rle([768], (32, 24)), r"RLE size \[32, 24\] is not the image's"),
    "run lengths that are too few": (with_rle([0, 767]), "do not add up"),
    "run lengths of 2 GB": (with_rle([2**31, 2**31]), "do not add up"),
    "run lengths that wrap around to the right sum": (with_rle([2**32, 768]), "do not add up"),
    "run lengths below zero": (with_rle([800, -32]), "do not add up"),
    "run lengths of true": (with_rle([True, 767]), "do not add up"),
    "run lengths of fractions": (with_rle([0.5, 767.5]), "do not add up"),
    "run lengths of NUL": (with_rle("\0" * 9), "do not add up"),
    "run lengths that never end": (with_rle("o" * 100_000), "do not add up"),
    "run lengths of a megabyte of ones": (with_rle("1" * 1_000_000), "do not add up"),
}


def write(root, change):
    """An export of one image whose left half is a crack, with parts of its JSON changed."""
    data = {"images": [image(1)], "annotations": [annotation(9, 1, [RING], BOX)]}
    file = write_export(root / "cracks.coco", data["images"], data["annotations"])
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return file


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize("name", REFUSED_EXPORTS)
def test_a_hostile_export_is_refused_and_changes_nothing(tmp_path, name):
    change, message = REFUSED_EXPORTS[name]
    file = write(tmp_path / "in", change)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=message) as failure:
        build_manifest(tmp_path / "in", tmp_path / "out" / "manifest")
    assert str(tmp_path / "in") in str(failure.value) and len(str(failure.value)) < 700
    assert contents(tmp_path) == before and file.is_file()


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda text: text.encode("utf-8-sig"), "not JSON .*BOM"),
        (lambda text: text.encode("utf-16"), "not JSON"),
        (lambda text: text.encode("utf-32"), "not JSON"),
        (lambda text: text.replace("jpg", "j\u00e4g").encode("latin-1"), "not JSON .*can't decode"),
        (lambda text: text.encode()[: len(text) // 2], "not JSON"),
        (lambda text: text.encode() * 2, "not JSON .*Extra data"),
        (lambda text: b"\0" + text.encode(), "not JSON"),
        (lambda text: ("[" * 200_000 + text).encode(), "not JSON"),
        (lambda text: text.replace('"area": 1', '"area": ' + "9" * 5000).encode(), "not JSON .*4300 digits"),
    ],
    ids=["BOM", "UTF-16", "UTF-32", "Latin-1", "cut", "twice", "NUL", "200,000 brackets", "5,000 digits"],
)
def test_annotations_in_another_form_are_refused(tmp_path, encode, message):
    file = write(tmp_path, {})
    file.write_bytes(encode(file.read_text()))
    with pytest.raises(DataError, match=message) as failure:
        build_manifest(tmp_path, tmp_path / "manifest")
    assert str(failure.value).startswith(f"{file}: ") and "\n" not in str(failure.value)


@pytest.mark.fault("COCO", REFUSED)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda photo: photo.unlink(), "1 images are missing"),
        (lambda photo: photo.write_bytes(b""), "cannot be read as an image"),
        (lambda photo: photo.write_bytes(photo.read_bytes()[:300]), "cannot be read as an image"),
        (lambda photo: (photo.unlink(), photo.mkdir()), "1 images are missing"),
        (lambda photo: (photo.unlink(), os.mkfifo(photo)), "1 images are missing"),
        (lambda photo: (photo.unlink(), photo.symlink_to("/dev/zero")), "1 images are missing"),
        (lambda photo: (photo.unlink(), photo.symlink_to(photo.name)), "1 images are missing"),
    ],
    ids=["gone", "empty", "cut", "a folder", "a pipe", "a device", "a link to itself"],
)
def test_an_export_with_a_spoiled_image_is_refused(tmp_path, spoil, message):
    spoil(write(tmp_path, {}).parent / NAME)
    with pytest.raises(DataError, match=message) as failure:
        build_manifest(tmp_path, tmp_path / "manifest")
    assert str(tmp_path / "cracks.coco" / "train" / NAME) in str(failure.value)


READ_EXPORTS = {
    "annotations of one id": {"annotations": [annotation(9, 1, [RING], BOX)] * 2},
    "an annotation without an id": {
        "annotations": [{k: v for k, v in annotation(9, 1, [RING], BOX).items() if k != "id"}]
    },
    "a crowd of nonsense": with_annotation(iscrowd="x", area=-1, score=float("nan")),
    "a polygon half outside": with_annotation(segmentation=[[-99, -99, 16, -99, 16, 99, -99, 99]]),
    "a polygon of 20,000 points": with_annotation(segmentation=[RING * 2_501]),
    "a box higher than any photo": with_annotation(segmentation=[], bbox=[-16, -1e300, 32, 2e300]),
    "an id of 64 bits": {"images": [image(2**63, NAME)], "annotations": [annotation(9, 2**63, [RING], BOX)]},
    "run lengths": with_rle(rle(LEFT_HALF)["counts"]),
    "run lengths with empty runs": with_rle([0, 0, 0, 384, 384]),
    "categories that are none of ours": {"categories": [{"id": 1, "name": "x" * 9999}, {"id": "2"}, {}]},
    "keys that nobody knows": {"__proto__": {}, "licenses": None, "info": [[[]]]},
}


@pytest.mark.fault("COCO", READ)
@pytest.mark.parametrize("name", READ_EXPORTS)
def test_an_odd_export_gives_the_right_mask(tmp_path, name):
    write(tmp_path, READ_EXPORTS[name])
    manifest = build_manifest(tmp_path, tmp_path / "manifest")
    (row,) = manifest.table.itertuples()
    assert np.array_equal(read_mask(manifest.mask_file(row)) > 0, LEFT_HALF)


# --- At random

MORE = [2**31, 2**31 - 1, 2**32, 2**63, -(2**31), 5e-324, -0.0, "\0", "\u2028", "x" * 10_000, [0] * 1000]
MORE += [
    [1e308] * 8,
    [[9999.9] * 6],
    [[1e-300] * 6],
    [[-9999, 0, 9999, 0, 0, 9999]],
    {"size": list(SIZE), "counts": [768]},
]
MORE += [{"size": list(SIZE), "counts": "P" * 10_000}, {"size": [2**31] * 2, "counts": [2**62]}, rle(BLOB)]


def replaced(value, path, new):
    """A JSON value with another one at a path, or without it where that is `...`; what did not change is shared."""
    key, *rest = path
    copy = list(value) if isinstance(value, list) else dict(value)
    if new is ... and not rest:
        del copy[key]
    else:
        copy[key] = replaced(value[key], rest, new) if rest else new
    return copy


@st.composite
def texts(draw):
    """The text of an export in which up to three things are wrong, sometimes cut or without a byte."""
    data = RICH
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        if ways := list(places(data)):
            data = replaced(data, draw(st.sampled_from(ways)), draw(st.sampled_from([..., *ODD_VALUES, *MORE])))
    text = bytearray(json.dumps(data).encode())
    damage = draw(st.sampled_from([*["none"] * 8, "cut", "byte"]))
    if damage != "none":
        place = draw(st.integers(0, len(text) - 1))
        text[place:] = text[place + 1 :] if damage == "byte" else b""
    return bytes(text)


class InMemory:
    """A file that is read from memory: ten thousand on a disk would take most of the time."""

    def __init__(self, data):
        self.data = data

    def __str__(self):
        return "cracks.coco/train/_annotations.coco.json"

    def read_text(self, encoding):
        return self.data.decode(encoding)


def outcome_of(text):
    """Reads and draws an export, and says whether it was refused; all else fails."""
    file = InMemory(text)
    try:
        for entry in read_coco(file)[0]:
            if (
                entry.size_hw[0] * entry.size_hw[1] < 10**7
            ):  # a photo of this size is not there: it never comes this far
                drawn = rasterise(entry.annotations, entry.size_hw, f"{file}: image {entry.entry['id']}")
                assert drawn.mask.shape == entry.size_hw and set(np.unique(drawn.mask)) <= {0, 255}
    except DataError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error) and len(str(error)) < 700
        return REFUSED
    return READ


@pytest.fixture
def try_at_random(tally):
    """Reads so many exports of nonsense, the same ones each time: the counts are documented."""

    def run(n):
        counts = Counter()

        @settings(max_examples=n, deadline=timedelta(seconds=5), database=None, derandomize=True)
        @given(texts())
        def check(text):
            counts[outcome_of(text)] += 1

        check()
        for outcome in counts:
            tally(outcome, counts[outcome])
        return counts

    return run


@pytest.mark.fault("COCO", REFUSED)
def test_some_exports_at_random(try_at_random):
    counts = try_at_random(300)
    assert counts.total() >= 300 and counts[REFUSED] and counts[READ]


@pytest.mark.slow
@pytest.mark.fault("COCO", REFUSED)
def test_ten_thousand_exports_at_random(try_at_random):
    counts = try_at_random(10_000)
    assert counts.total() == 10_000 and min(counts.values()) > 500
