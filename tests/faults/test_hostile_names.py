"""Names as nobody should choose them: refused in one line that shows them, or what is written goes where it belongs."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drywall_seg.config import resolve_config
from drywall_seg.data.coco import DataError
from drywall_seg.data.manifest import build_manifest
from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import TABLE, Wanted, predict_files
from drywall_seg.prompts import slugs
from drywall_seg.runs import run_folder
from tests.data.exports import annotation, image, write_export
from tests.faults.table import READ, REFUSED
from tests.inference.test_predict import Fake, photo

HALF = "\udcff"
"""What Python makes of a byte that is no UTF-8."""

# --- Runs

RUNS = ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "a\nb", "a\n", "a b", ".hidden", "~", "$HOME", "*", "a;b"]
RUNS += ["x" * 101, "\u58c1" * 100, HALF, "\u202egnp"]


@pytest.mark.fault("names", REFUSED)
@pytest.mark.parametrize("name", RUNS, ids=ascii)
def test_a_run_of_a_hostile_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="run_name .* must be a folder name") as failure:
        run_folder(tmp_path, name)
    assert repr(name) in str(failure.value)


@pytest.mark.fault("names", READ)
@pytest.mark.parametrize(
    "name", ["a", "A", "x" * 100, "-rf", "con", "a.", "Ri\u00df", "\u58c1", "\u0434\u043e\u043c"], ids=ascii
)
def test_a_run_of_an_odd_name_is_a_folder_of_that_name(tmp_path, name):
    other = run_folder(tmp_path, name.swapcase()[:90] + "_")
    for folder in (run_folder(tmp_path, name), other):
        folder.mkdir()
        (folder / "who").write_text(folder.name)
    assert (tmp_path / name / "who").read_text() == name and len(os.listdir(tmp_path)) == 2


@pytest.mark.fault("names", REFUSED)
@pytest.mark.parametrize("setting", ["data_root", "outputs_root", "model"])
@pytest.mark.parametrize("path", ["", "a\0b", f"a{HALF}"], ids=ascii)
def test_a_setting_that_is_no_path_is_refused(setting, path):
    with pytest.raises(ValueError, match=f"{setting} is .*, not a text that can be a path") as failure:
        resolve_config(preset="compact", **{setting: path})
    assert repr(path) in str(failure.value)


# --- Photos

PHOTOS = [
    "a\nb",
    "a\rb",
    "a\u2028b",
    "a\x85b",
    "a\x1cb",
    "a\tb",
    "\x1b[2J",
    'a,"b"',
    "=1+1",
    "-rf",
    "*",
    "$(x)",
    "a;b",
    " a ",
]
PHOTOS += [
    "a__segment_crack",
    "NA",
    "1e5",
    "Ri\u00df 1",
    "\u58c1",
    "\u062c\u062f\u0627\u0631",
    "\U0001f9f1",
    "x" * 200,
]


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.fromarray(photo(40, 64)).save(file, "PNG")


@pytest.mark.fault("names", READ)
@pytest.mark.parametrize("name", PHOTOS, ids=ascii)
def test_a_photo_of_an_odd_name_has_its_mask_and_is_not_done_again(tmp_path, name):
    save(tmp_path / "in" / f"{name}.png")
    save(tmp_path / "in" / "deep" / f"{name}.png")
    backend = Fake()
    for _ in range(2):
        table, errors, _ = predict_files(
            Predictor(backend), [tmp_path / "in"], Wanted(("segment crack",)), tmp_path / "out"
        )
        assert not errors and backend.images == 2
    assert [os.path.relpath(mask, tmp_path / "out") for mask in table["mask"]] == [
        *sorted([f"{name}__segment_crack.png", f"deep/{name}__segment_crack.png"], key=lambda n: f"{tmp_path}/in/{n}")
    ]
    assert all(read_mask(mask).shape == (40, 64) for mask in table["mask"])
    stored = pd.read_csv(tmp_path / "out" / TABLE, keep_default_na=False)
    assert stored["photo"].tolist() == table["photo"].tolist()


@pytest.mark.fault("names", READ)
@pytest.mark.parametrize(
    ("names", "renamed"),
    [
        (["a.png", "A.png"], "a-2"),
        (["caf\u00e9.png", "cafe\u0301.png"], "caf\u00e9-2"),
        (["a.png", "a.jpg"], "a-2"),
        (["stra\u00dfe.png", "STRASSE.png"], "stra\u00dfe-2"),
    ],
    ids=["case", "accents", "suffix", "sharp s"],
)
def test_photos_that_differ_in_little_do_not_share_a_mask(tmp_path, names, renamed):
    for name in names:
        save(tmp_path / "in" / name)
    table, _, given = predict_files(Predictor(Fake()), [tmp_path / "in"], Wanted(("segment crack",)), tmp_path / "out")
    assert table["mask"].nunique() == 2 and list(given.values()) == [renamed]


@pytest.mark.fault("names", REFUSED)
@pytest.mark.parametrize(
    ("name", "message"),
    [(HALF, "its name is not UTF-8"), ("x" * 251, "File name too long")],
    ids=["no UTF-8", "255 bytes"],
)
def test_a_photo_of_a_hostile_name_is_named_and_the_others_go_on(tmp_path, name, message):
    save(tmp_path / "in" / f"{name}.png")
    save(tmp_path / "in" / "b.png")
    table, errors, _ = predict_files(Predictor(Fake()), [tmp_path / "in"], Wanted(("segment crack",)), tmp_path / "out")
    ((broken, said),) = errors.items()
    assert broken in said and message in said and len(table) == 1
    stored = pd.read_csv(tmp_path / "out" / TABLE, keep_default_na=False)
    assert stored["warnings"].str.contains(message).tolist().count(True) == 1


@pytest.mark.fault("names", REFUSED)
@pytest.mark.parametrize("out", ["a\0b", f"a{HALF}", "x" * 256], ids=["NUL", "no UTF-8", "256 bytes"])
def test_a_folder_for_masks_that_cannot_be_is_refused(tmp_path, out):
    save(tmp_path / "a.png")
    with pytest.raises((ValueError, OSError), match="out .* is not a path|File name too long"):
        predict_files(Predictor(Fake()), [tmp_path / "a.png"], Wanted(("segment crack",)), tmp_path / out)
    assert os.listdir(tmp_path) == ["a.png"]


# --- Exports

FOLDERS = [
    "cracks\n",
    "cracks\r",
    'cracks,"x"',
    "cracks Ri\u00df \u58c1",
    "cracks\u2028",
    "cracks\\",
    "CRACKS",
    "cracks\x1b[2J",
]
FOLDERS += ["cracks" + "x" * 249]


@pytest.mark.fault("names", READ)
@pytest.mark.parametrize("name", FOLDERS, ids=ascii)
def test_an_export_of_an_odd_name_is_the_same_when_it_is_read_again(tmp_path, name):
    images = [image(1, "NA.jpg"), image(2, "1e5.jpg"), image(3, 'a,"b".jpg'), image(4, "\u2028.jpg")]
    write_export(tmp_path / "in" / name, images, [annotation(1, 1)])
    made, stored = (build_manifest(tmp_path / "in", tmp_path / "out") for _ in range(2))
    assert made.table.equals(stored.table) and len(stored.table) == 4
    assert all(
        stored.image_file(row).is_file() and stored.mask_file(row).is_file() for row in stored.table.itertuples()
    )
    written = [path for path in tmp_path.rglob("*.png")]
    assert len(written) == 4 and all(tmp_path / "out" / "masks" in path.parents for path in written)


@pytest.mark.fault("names", REFUSED)
def test_an_export_whose_name_is_no_utf8_is_refused(tmp_path):
    write_export(tmp_path / "in" / f"cracks{HALF}", [image(1)])
    with pytest.raises(DataError, match="its name is not UTF-8, so no table can hold it; rename it") as failure:
        build_manifest(tmp_path / "in", tmp_path / "out")
    assert f"cracks{HALF}" in str(failure.value)


# --- Sentences


@pytest.mark.fault("names", REFUSED)
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt was given"),
        ([""], "prompt '' holds no letter or digit"),
        (["   "], "holds no letter or digit"),
        ([".."], r"prompt '\.\.' holds no letter or digit"),
        (["/"], "holds no letter or digit"),
        (["\0"], r"prompt '\\x00' holds no letter or digit"),
        (["\U0001f9f1"], "holds no letter or digit"),
        ([f"crack {HALF}"], "is not text: it holds bytes that are no UTF-8"),
        ([f"crack {HALF} " + "x" * 99], "is not text"),
        (["segment crack", "Segment Crack"], "would both be saved as 'segment_crack'"),
        (["segment crack", "segment\0crack"], "would both be saved as 'segment_crack'"),
        (["a/b", "a\\b"], "would both be saved as 'a_b'"),
        (["\u00e9", "e\u0301"], "would both be saved as"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_sentences_that_name_no_file_are_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        slugs(prompts)


SENTENCES = [
    "../../etc/passwd",
    "segment\ncrack",
    "a\0b",
    "x" * 255,
    "x" * 100_000,
    "\u0441\u0435\u0433\u043c\u0435\u043d\u0442",
]
SENTENCES += ["\u5206\u5272\u88c2\u7f1d" * 100, "$(rm -rf /)", "con", "\u0130" * 40]


@pytest.mark.fault("names", READ)
@pytest.mark.parametrize("prompt", SENTENCES, ids=lambda value: ascii(value)[:40])
def test_an_odd_sentence_writes_one_mask_in_its_folder(tmp_path, prompt):
    save(tmp_path / "in" / "a.png")
    predictor = Predictor(Fake())
    for _ in range(2):
        table, errors, _ = predict_files(predictor, [tmp_path / "in"], Wanted((prompt,)), tmp_path / "out")
    assert not errors and predictor.backend.images == 1
    (mask,) = (tmp_path / "out").glob("*.png")
    assert table["mask"].tolist() == [str(mask)] and np.count_nonzero(read_mask(mask))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
