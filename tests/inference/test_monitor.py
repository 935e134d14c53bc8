import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from scipy import stats

from drywall_seg.images import read_image
from drywall_seg.inference import Prediction, Predictor, monitor
from drywall_seg.inference.monitor import (
    COLUMNS,
    FIELDS,
    LEVELS,
    append_entries,
    compare,
    describe_photo,
    log_entry,
    make_reference,
    photo_warnings,
    read_log,
)
from drywall_seg.prompts import LABELS, canonical_prompt
from tests.faults.table import READ, REFUSED
from tests.inference.test_predict import Fake

CRACK = canonical_prompt("crack")


def entry_of(photo, predictor=None, presence=0.9):
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[: len(mask) // 4] = 255
    return log_entry(predictor or PREDICTOR, photo, Prediction(CRACK, None, mask, 0.5, presence, 0.25), 0.123449)


class Hashed(Fake):
    hashed = 0

    @property
    def model_hash(self):
        self.hashed += 1
        return "abc"


PREDICTOR = Predictor(Hashed())
GREY = np.full((40, 60, 3), 102, np.uint8)


def darker(photo, factor):
    return (photo * factor).astype(np.uint8)


def blurred(photo, radius):
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius)))


@pytest.fixture(scope="module")
def photos(sample_root):
    """Photographs of the sample's cracks, in two halves that share none."""
    files = sorted(sample_root.glob("cracks.coco/*/*.jpg"), key=lambda file: file.name)
    halves = [[read_image(file) for file in files if int(file.name[6:8]) // 2 % 2 == part] for part in (0, 1)]
    assert min(map(len, halves)) >= 30
    return halves


@pytest.fixture(scope="module")
def reference(photos):
    return make_reference(pd.DataFrame(map(entry_of, photos[0])))


def warnings_of(photos, reference):
    table = compare(pd.DataFrame(map(entry_of, photos)), reference)
    return {row.field: row.warning for row in table.itertuples() if row.warning}


def test_a_grey_wall():
    assert describe_photo(GREY) == {"brightness": 0.4, "sharpness": 0, "megapixels": 0.0024}


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 2), (3, 700)])
@pytest.mark.parametrize("value", [0, 255])
def test_photos_of_any_shape(size_hw, value):
    described = describe_photo(np.full((*size_hw, 3), value, np.uint8))
    assert (described["brightness"], described["sharpness"]) == (value / 255, 0)


def test_sharpness_heeds_neither_exposure_nor_size(photos):
    for photo in photos[0][:5]:
        large = np.asarray(Image.fromarray(photo).resize((1600, 1600 * len(photo) // photo.shape[1])))
        larger = np.asarray(Image.fromarray(large).resize((3000, 3000 * len(photo) // photo.shape[1])))
        sharp = describe_photo(large)["sharpness"]
        assert describe_photo(larger)["sharpness"] == pytest.approx(sharp, rel=0.1)
        assert describe_photo(darker(large, 0.6))["sharpness"] == pytest.approx(sharp, rel=0.15)
        assert describe_photo(blurred(large, 10))["sharpness"] < 0.75 * sharp


def test_strips_give_what_the_whole_photo_gives(photos, monkeypatch):
    photo = np.asarray(Image.fromarray(photos[0][0]).resize((3000, 2500)))
    described = describe_photo(photo)
    monkeypatch.setattr(monitor, "STRIP", 10_000)
    assert describe_photo(photo) == described


def test_an_entry_tells_nothing_of_which_photo_it_was():
    entry = entry_of(GREY)
    assert list(entry) == COLUMNS
    wanted = {"prompt": CRACK, "label": "crack", "presence": 0.9, "area": 0.25, "doubt": 0.25, "brightness": 0.4}
    wanted |= {"width": 60, "height": 40, "seconds": 0.1234, "model": "abc"}
    assert {name: entry[name] for name in wanted} == wanted
    assert json.loads(json.dumps(entry)) == entry
    assert pd.Timestamp(entry["time"]).utcoffset() == pd.Timedelta(0)
    assert abs(pd.Timestamp(entry["time"]) - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=1)


def test_a_models_weights_are_hashed_once_and_a_described_photo_is_not_described_again(monkeypatch):
    backend = Hashed()
    predictor = Predictor(backend)
    for _ in range(3):
        assert entry_of(GREY, predictor)["model"] == "abc"
    assert backend.hashed == 1
    monkeypatch.setattr(monitor, "describe_photo", None)
    prediction, described = Prediction(CRACK, None, GREY[..., 0], 0.5, 0.9), {"brightness": 0.7}
    assert log_entry(predictor, GREY, prediction, 1, described)["brightness"] == 0.7


@pytest.mark.fault("own files", READ)
def test_a_torn_line_is_counted_and_the_next_entry_is_whole(tmp_path):
    log = tmp_path / "deep" / "log.jsonl"
    append_entries(log, [entry_of(GREY, presence=0.1), entry_of(GREY, presence=0.2)])
    append_entries(log, [])
    log.write_bytes(log.read_bytes()[:-30])
    append_entries(log, [entry_of(GREY, presence=0.3)])
    append_entries(log, [entry_of(GREY, presence=0.4)])
    table = read_log(log)
    assert list(table.presence) == [0.1, 0.3, 0.4]
    assert table.attrs["skipped_lines"] == 1
    assert list(table.columns) == COLUMNS
    assert str(table.time.dt.tz) == "UTC"
    assert b"\n\n" not in log.read_bytes()


@pytest.mark.fault("own files", READ)
@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"12", b"[]", b"{}", b'{"time": 5}', "no time", "no number", "no label"],
)
def test_lines_that_are_no_entries_are_skipped(tmp_path, line):
    if isinstance(line, str):
        change = {"no time": {"time": "noon"}, "no number": {"area": "large"}, "no label": {"label": None}}[line]
        line = json.dumps(entry_of(GREY) | change).encode()
    log = tmp_path / "log.jsonl"
    append_entries(log, [entry_of(GREY)])
    log.write_bytes(line + b"\n\n" + log.read_bytes())
    assert len(read_log(log)) == 1
    assert read_log(log).attrs["skipped_lines"] == 1


@pytest.mark.fault("own files", REFUSED)
@pytest.mark.parametrize("content", [b"", b"\n", b'{"time": "2026', None])
def test_a_log_with_nothing_in_it_is_named(tmp_path, content):
    log = tmp_path / "log.jsonl"
    if content is not None:
        log.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"log\.jsonl"):
        read_log(log)


def test_a_log_at_an_address_is_refused_before_anything_is_logged():
    with pytest.raises(ValueError, match="memory://logs/a.jsonl"):
        append_entries("memory://logs/a.jsonl", [])


WRITER = """
import sys
from drywall_seg.inference.monitor import append_entries
assert "torch" not in sys.modules, "importing the monitor imports torch"
for turn in range(50):
    append_entries(sys.argv[1], [{"writer": sys.argv[2], "turn": turn, "padding": "x" * 9000}] * 2)
"""


def test_lines_of_several_processes_never_mix(tmp_path):
    log = tmp_path / "log.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, log, name]) for name in "abc"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line]  # an empty one is no harm
    for name in "abc":
        assert [line["turn"] for line in lines if line["writer"] == name] == [i // 2 for i in range(100)]
    assert all(one["turn"] == other["turn"] for one, other in zip(lines[::2], lines[1::2], strict=True))


FULL = """
import resource, sys
from drywall_seg.inference.monitor import append_entries
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    append_entries(sys.argv[1], [{"text": "x" * 200}])
except OSError as error:
    assert sys.argv[1] in str(error)
else:
    raise AssertionError("written in part, and nothing said")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_an_entry_that_is_written_in_part_is_an_error_and_the_next_one_is_whole(tmp_path):
    log = tmp_path / "log.jsonl"
    subprocess.run([sys.executable, "-c", FULL, log], check=True)
    assert log.stat().st_size == 100
    append_entries(log, [entry_of(GREY)])
    assert len(read_log(log)) == 1


def test_a_reference_is_small_and_plain(reference, photos):
    (label,) = reference
    assert label == "crack"
    assert list(reference[label]) == ["n", *FIELDS]
    assert reference[label]["n"] == len(photos[0])
    assert json.loads(json.dumps(reference)) == reference
    assert len(json.dumps(reference)) < 1500
    brightness = [describe_photo(photo)["brightness"] for photo in photos[0]]
    expected = np.quantile(brightness, LEVELS)
    np.testing.assert_allclose(reference[label]["brightness"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("values", "distance", "outside", "warning"),
    [
        ([0.5] * 8, 0.5, 0, ""),
        ([2.0] * 3, 1, 1, ""),
        ([2.0] * 4, 1, 1, "too bright"),
        ([-2.0] * 4, 1, 1, "too dark"),
        ([0.05, 0.35, 0.65, 0.95], 0.2, 0, ""),
        (list(np.linspace(0, 0.6, 100)), 0.4, 0.08, "too dark"),
        ([-0.2] * 50 + [1.2] * 50, 0.5, 1, "too dark; too bright"),
    ],
)
def test_distances_worked_by_hand(values, distance, outside, warning):
    reference = {"crack": {"n": 1000, **dict.fromkeys(FIELDS, list(LEVELS))}}
    log = pd.DataFrame({"label": "crack", **dict.fromkeys(FIELDS, values)})
    row = compare(log, reference).set_index("field").loc["brightness"]
    assert row.n == len(values)
    assert row.distance == pytest.approx(distance)
    assert row.share_outside == pytest.approx(outside, abs=0.011)
    assert (row["median"], row.reference_median) == (pytest.approx(np.median(values)), 0.5)
    assert row.warning == warning


@pytest.mark.parametrize("n", [1, 7, 300])
def test_the_distance_is_scipys(n):
    values = np.random.default_rng(n).beta(2, 3, n)
    log = pd.DataFrame({"label": "crack", **dict.fromkeys(FIELDS, values)})
    table = compare(log, {"crack": {"n": 100, **dict.fromkeys(FIELDS, list(LEVELS))}})
    np.testing.assert_allclose(table.distance, stats.kstest(values, "uniform").statistic)


def test_what_is_always_the_same_differs_only_where_it_changes_much():
    def megapixels(value):
        table = pd.DataFrame({"label": "crack", **dict.fromkeys(FIELDS, [0.4096] * 40)})
        reference = make_reference(table)
        return compare(table.assign(megapixels=value), reference).set_index("field").loc["megapixels"]

    assert (megapixels(0.4096).distance, megapixels(0.4096).warning) == (0, "")
    assert (megapixels(0.3072).distance, megapixels(0.3072).warning) == (1, "")
    assert megapixels(12.19).warning == "unlike the training photos: megapixels higher"
    assert megapixels(0.1).warning == "unlike the training photos: megapixels lower"


@pytest.mark.parametrize("n", [4, 12, 60, 400])
def test_hardly_a_warning_for_photos_drawn_from_the_reference_itself(n):
    rng = np.random.default_rng(n)

    def draw(number):
        parts = [{field: rng.lognormal(-1, 0.7, number) for field in FIELDS} | {"label": label} for label in LABELS]
        return pd.concat(map(pd.DataFrame, parts))

    logs = [compare(draw(n), make_reference(draw(200))) for _ in range(60)]
    assert sum((table.warning != "").any() for table in logs) <= 2  # of 60; 0.6 where 1 of 100 warns
    assert np.mean([table.share_outside for table in logs]) == pytest.approx(0.1, abs=0.02)


def test_other_photographs_of_the_same_kind_are_not_warned_of(photos, reference):
    assert warnings_of(photos[1], reference) == {}
    assert np.mean([bool(photo_warnings(describe_photo(photo), reference["crack"])) for photo in photos[1]]) < 0.08


@pytest.mark.parametrize("n", [5, 30])
def test_dark_and_blurred_photographs_are_told(photos, reference, n):
    assert warnings_of([darker(photo, 0.6) for photo in photos[1][:n]], reference) == {"brightness": "too dark"}
    assert warnings_of([blurred(photo, 2) for photo in photos[1][:n]], reference) == {"sharpness": "too blurred"}
    bright = [255 - darker(255 - photo, 0.2) for photo in photos[1][:n]]
    assert warnings_of(bright, reference)["brightness"] == "too bright"


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda photo: darker(photo, 0.4), "too dark"),
        (lambda photo: blurred(photo, 3), "too blurred"),
        (lambda photo: np.maximum(photo, 250), "too bright"),
    ],
)
def test_a_single_photo_is_warned_of(photos, reference, change, warning):
    found = [photo_warnings(describe_photo(change(photo)), reference["crack"]) for photo in photos[1]]
    assert np.mean([warning in texts for texts in found]) > 0.9
    assert photo_warnings(describe_photo(change(photos[1][0])), {}) == []


def test_without_a_reference_there_are_figures_and_no_warnings(photos, reference):
    log = pd.DataFrame([entry_of(darker(photo, 0.3)) for photo in photos[1][:10]])
    for known in ({}, {"taping_area": reference["crack"]}):
        table = compare(log, known)
        assert (table.warning == "").all()
        assert table.distance.isna().all() and table["median"].notna().all()
