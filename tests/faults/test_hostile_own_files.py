"""What the project wrote itself, after somebody or a fault has written into it: refused, or made again as it was."""

import json
import shutil

import pytest
from PIL import Image

from drywall_seg.config import config_of_run, run_config
from drywall_seg.data.manifest import build_manifest
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
from drywall_seg.inference.journal import FOLDER
from drywall_seg.notebooks import _is_done
from drywall_seg.runs import write_json
from tests.conftest import ROOT
from tests.data.exports import annotation, contents, image, write_export
from tests.faults.table import REFUSED, SAME
from tests.inference.test_predict import Fake, photo

# --- The journal of a prediction


@pytest.fixture
def predicted(tmp_path):
    """Two photos with their masks, and a function that predicts them once more and counts those that it had to."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(photo(40, 64)).save(tmp_path / "in" / f"{name}.png")

    def predict():
        backend = Fake()
        predict_files(Predictor(backend), [tmp_path / "in"], Wanted(("segment crack",)), tmp_path / "out")
        return backend.images

    assert predict() == 2
    (journal,) = (tmp_path / "out" / FOLDER).iterdir()
    return journal, predict


def masks(journal):
    return {path.name: path.read_bytes() for path in journal.parents[1].glob("*.png")}


def changed(**fields):
    """The journal's first line with other values."""
    return lambda lines: [json.dumps(json.loads(lines[0]) | fields).encode(), *lines[1:]]


JOURNALS = {
    "no bytes": (lambda lines: [], 2),
    "NUL": (lambda lines: [bytes(99), *lines], 0),
    "noise": (lambda lines: [bytes(range(256)), *lines], 0),
    "cut": (lambda lines: [lines[0], lines[1][:-20]], 1),
    "two lines in one": (lambda lines: [lines[0] + lines[1]], 2),
    "each line twice": (lambda lines: lines * 2, 0),
    "lines of other JSON": (lambda lines: [b"5", b"null", b"[]", b"{}", b'"x"', *lines], 0),
    "200,000 brackets": (lambda lines: [b"[" * 200_000, *lines], 0),
    "5,000 digits": (lambda lines: [b"9" * 5000, *lines], 0),
    "a photo that is a number": (changed(photo=5), 1),
    "a mask that is a list": (changed(mask=[]), 1),
    "another hash": (changed(files={"a__segment_crack.png": [9, "0" * 64]}), 1),
    "files without a hash": (changed(files={"a__segment_crack.png": 5}), 1),
    "files of elsewhere": (changed(files={"../../etc/passwd": [0, ""]}), 1),
    "another state of the photo": (changed(source=[0, 0]), 1),
    "a name that leads out": (changed(named=["", "../../evil"]), 1),
    "a name of three": (changed(named=["", "a", "b"]), 1),
    "other settings": (changed(settings="0" * 16), 1),
}


@pytest.mark.fault("own files", SAME)
@pytest.mark.parametrize("name", JOURNALS)
def test_what_a_journal_says_wrongly_is_predicted_again(tmp_path, predicted, name):
    journal, predict = predicted
    change, n_again = JOURNALS[name]
    before = masks(journal)
    journal.write_bytes(b"\n".join([*change(journal.read_bytes().splitlines()), b""]))
    assert predict() == n_again
    assert masks(journal) == before and len(before) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    table = (tmp_path / "out" / "predictions.csv").read_text()
    assert table.count("a__segment_crack.png") == table.count("b__segment_crack.png") == 1


@pytest.mark.fault("own files", SAME)
@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", Image.new("L", (9, 9)).tobytes(), None], ids=["empty", "cut", "other", "gone"]
)
def test_a_mask_that_is_not_what_was_written_is_made_again(predicted, data):
    journal, predict = predicted
    before = masks(journal)
    mask = journal.parents[1] / "a__segment_crack.png"
    mask.unlink() if data is None else mask.write_bytes(data)
    assert predict() == 1
    assert masks(journal) == before


# --- The manifest

MANIFESTS = {
    "no bytes": lambda data: b"",
    "NUL": lambda data: bytes(99),
    "noise": lambda data: bytes(range(256)),
    "cut": lambda data: data[: len(data) // 2],
    "a row less": lambda data: data[: data.rstrip().rindex(b"\n") + 1],
    "a row twice": lambda data: data + data.splitlines(keepends=True)[-1],
    "no header": lambda data: data[data.index(b"\n") + 1 :],
    "other columns": lambda data: b"a,b\n1,2\n",
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "masks of elsewhere": lambda data: data.replace(b"masks/", b"../../etc/"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An export of three images and its manifest; only to be read."""
    root = tmp_path_factory.mktemp("prepared")
    write_export(root / "in" / "cracks.coco", [image(1), image(2), image(3)], [annotation(1, 1)])
    build_manifest(root / "in", root / "out")
    return root


@pytest.mark.fault("own files", SAME)
@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("file", ["manifest.csv", "manifest.json"])
def test_a_manifest_that_is_not_what_was_written_is_made_again(prepared, tmp_path, file, name):
    folder = shutil.copytree(prepared / "out", tmp_path / "out")
    before = contents(folder)
    (folder / file).write_bytes(MANIFESTS[name](before[file]))
    assert len(build_manifest(prepared / "in", folder).table) == 3
    assert contents(folder) == before


# --- Runs


@pytest.mark.fault("own files", REFUSED)
@pytest.mark.parametrize(
    "text", ["", "[]", "5", "null", '"x"', '{"epochs": ', "[" * 200_000, "9" * 5000], ids=lambda t: t[:9]
)
def test_the_settings_of_a_run_that_are_none_are_refused(tmp_path, text):
    file = tmp_path / "run" / "config.json"
    (file.parent / "checkpoint").mkdir(parents=True)
    file.write_text(text)
    (file.parent / "checkpoint" / "segmenter.json").write_text("{}")
    for read in (
        lambda: config_of_run("run", str(tmp_path)),
        lambda: run_config(run_name="run", outputs_root=str(tmp_path)),
    ):
        with pytest.raises(ValueError, match="config.json: not (JSON|a JSON object)") as failure:
            read()
        assert str(file) in str(failure.value)


@pytest.mark.fault("own files", REFUSED)
@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", "8"), ("epochs", -1), ("image_size", 33), ("seed", 1.5), ("learning_rate", "x"), ("split", [])],
    ids=repr,
)
def test_a_setting_of_a_run_that_cannot_be_is_refused(tmp_path, name, value):
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {"preset": "compact", name: value})
    with pytest.raises(ValueError, match=f"{name} is ") as failure:
        config_of_run("run", str(tmp_path))
    assert repr(value) in str(failure.value)


NOTEBOOKS = ["", "[]", "5", "null", "{", "{}", '{"cells": 5}', '{"nbformat": "x"}', "[" * 200_000]
NOTEBOOKS += ['{"nbformat": 4, "nbformat_minor": 5, "cells": [5], "metadata": {}}']
NOTEBOOKS += ['{"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": 5}']


@pytest.mark.fault("own files", SAME)
@pytest.mark.parametrize("text", NOTEBOOKS, ids=lambda text: text[:20])
def test_an_executed_copy_of_nonsense_is_not_taken_for_done(tmp_path, text):
    (tmp_path / "copy.ipynb").write_text(text)
    assert _is_done(tmp_path / "copy.ipynb", ROOT / "notebooks" / "01_prepare.ipynb", {}) is False
