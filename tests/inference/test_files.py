import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO

from drywall_seg.images import read_mask
from drywall_seg.inference import Predictor, files
from drywall_seg.inference.files import Wanted, predict_files
from drywall_seg.inference.journal import COLUMNS, FOLDER
from drywall_seg.inference.photos import OutputNames
from drywall_seg.visualization.panels import draw_overlay
from tests.faults.table import REFUSED, SAME
from tests.inference.test_predict import Fake, photo


@pytest.fixture
def predictor():
    return Predictor(Fake())


def save(path, size_hw=(40, 64), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(*size_hw)).save(path, **options)
    return path


def written(out):
    files = (path.relative_to(out).as_posix() for path in out.rglob("*.png") if path.is_file())
    return sorted(name for name in files if not name.startswith("."))


def wanted(prompts, **others):
    return Wanted(tuple(prompts), **others)


def test_files_go_flat_and_folders_keep_their_shape(tmp_path, predictor):
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "deep" / "b.jpg")
    save(tmp_path / "else" / "c.png")
    out = tmp_path / "out"
    prompts = ["segment crack", "segment taping area"]
    table, errors, renamed = predict_files(
        predictor, [tmp_path / "in", tmp_path / "else" / "c.png"], wanted(prompts), out
    )
    assert written(out) == [
        "a__segment_crack.png",
        "a__segment_taping_area.png",
        "c__segment_crack.png",
        "c__segment_taping_area.png",
        "deep/b__segment_crack.png",
        "deep/b__segment_taping_area.png",
    ]
    assert not errors
    assert not renamed
    assert len(table) == 6
    assert table.area_share.between(0.4, 0.6).all()


def test_two_photos_of_one_stem_do_not_overwrite_each_other(tmp_path, predictor):
    first, second, third = save(tmp_path / "a.png"), save(tmp_path / "a.jpg", (64, 40)), save(tmp_path / "x" / "A.png")
    out = tmp_path / "out"
    _, _, renamed = predict_files(predictor, [first, second, third], wanted(["segment crack"]), out)
    assert written(out) == ["A-3__segment_crack.png", "a-2__segment_crack.png", "a__segment_crack.png"]
    assert renamed == {str(second): "a-2", str(third): "A-3"}
    assert read_mask(out / "a-2__segment_crack.png").shape == (64, 40)


@pytest.mark.fault("images", REFUSED)
def test_a_broken_photo_is_named_and_the_others_go_on(tmp_path, predictor):
    for name in ("a.png", "c.png"):
        save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"broken")
    table, errors, _ = predict_files(predictor, [tmp_path], wanted(["segment crack"]), tmp_path / "out")
    assert list(errors) == [str(tmp_path / "b.png")]
    assert "b.png" in errors[str(tmp_path / "b.png")]
    assert len(table) == 2


def test_masks_below_the_folder_are_not_taken_for_photos(tmp_path, predictor):
    save(tmp_path / "a.png")
    for _ in range(2):
        table, _, _ = predict_files(predictor, [tmp_path], wanted(["segment crack"]), tmp_path / "masks")
        assert len(table) == 1


def test_masks_beside_their_photos_are_not_taken_for_photos_either(tmp_path, predictor):
    save(tmp_path / "a.png")
    for _ in range(2):
        table, _, _ = predict_files(predictor, [tmp_path], wanted(["segment crack"]), tmp_path)
        assert len(table) == 1
    assert written(tmp_path) == ["a.png", "a__segment_crack.png"]


def test_a_mask_that_cannot_be_written_is_named_and_the_others_go_on(tmp_path, predictor):
    long = save(tmp_path / f"{'x' * 240}.png")
    save(tmp_path / "z.png")
    table, errors, _ = predict_files(predictor, [tmp_path], wanted(["segment crack"]), tmp_path / "out")
    assert list(errors) == [str(long)]
    assert table.photo.tolist() == [str(tmp_path / "z.png")]


def test_a_phone_photo_gives_an_upright_mask(tmp_path, predictor):
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0112] = 6  # stored lying, to be turned to the right
    path = save(tmp_path / "phone.jpg", (48, 64), exif=exif)
    predict_files(predictor, [path], wanted(["segment crack"]), tmp_path / "out")
    mask = read_mask(tmp_path / "out" / "phone__segment_crack.png")
    assert mask.shape == (64, 48)
    assert mask[:, 40:].mean() > 200  # the stored upper half is the upright photo's right half
    assert mask[:, :8].mean() < 50
    with Image.open(tmp_path / "out" / "phone__segment_crack.png") as written_mask:
        assert (written_mask.mode, written_mask.size) == ("L", (48, 64))
    assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize(
    ("paths", "prompts", "message"),
    [
        (["gone.png"], ["segment crack"], "gone.png"),
        (["empty"], ["segment crack"], "no photo"),
        (["a.png"], ["segment crack", "Segment crack."], "saved as"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, predictor, paths, prompts, message):
    save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        predict_files(predictor, [tmp_path / path for path in paths], wanted(prompts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_names_are_kept_per_image():
    names = OutputNames()
    assert names.stem("x/a.png", "a") == "a"
    assert names.stem("y/a.png", "a") == "a-2"
    assert names.stem("x/a.png", "a") == "a"
    assert names.stem("z/a-2.png", "a-2") == "a-2-2"


def test_what_is_there_and_whole_is_kept_and_the_rest_is_done_again(tmp_path, predictor):
    for name in "abcd":
        save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "e.png").write_bytes(b"broken")
    out = tmp_path / "out"
    first, errors, _ = predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), out)
    assert predictor.backend.images == 4 and len(errors) == 1
    masks = {path.name: path.read_bytes() for path in out.glob("*.png")}
    (out / "a__segment_crack.png").unlink()
    (out / "b__segment_crack.png").write_bytes(masks["b__segment_crack.png"][:-9] + b"something")
    save(tmp_path / "in" / "c.png", (30, 30))
    save(tmp_path / "in" / "e.png")
    second, errors, _ = predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), out)
    assert predictor.backend.images == 8 and not errors  # all but d
    for name in ("a", "b", "d"):
        assert (out / f"{name}__segment_crack.png").read_bytes() == masks[f"{name}__segment_crack.png"]
    assert read_mask(out / "c__segment_crack.png").shape == (30, 30)
    table = pd.read_csv(out / "predictions.csv").fillna("")
    assert table.columns.tolist() == COLUMNS and table.photo.map(lambda p: Path(p).stem).tolist() == list("abcde")
    assert second.photo.tolist() == table.photo.tolist() and not (table.warnings != "").any()


@pytest.mark.parametrize("change", ["threshold", "thresholds", "tile", "probs", "model"])
def test_other_settings_are_another_prediction(tmp_path, predictor, change):
    save(tmp_path / "a.png")
    predict_files(predictor, [tmp_path / "a.png"], wanted(["segment crack"]), tmp_path / "out")
    options = {}
    if change == "threshold":
        options = {"threshold": 0.3}
    elif change == "probs":
        options = {"probs": True}
    elif change == "model":
        predictor.backend.model_hash = "another"
    else:
        setattr(predictor, change, {**predictor.thresholds, "crack": 0.2} if change == "thresholds" else 64)
    for seen in (1, 0):
        before = predictor.backend.images
        predict_files(predictor, [tmp_path / "a.png"], wanted(["segment crack"], **options), tmp_path / "out")
        assert predictor.backend.images - before == seen


def test_a_second_prompt_joins_the_first_in_the_table(tmp_path, predictor):
    save(tmp_path / "a.png")
    for prompt in ("segment crack", "trace joint line"):
        table, _, _ = predict_files(predictor, [tmp_path / "a.png"], wanted([prompt]), tmp_path / "out")
        assert table.prompt.tolist() == [prompt]
    assert pd.read_csv(tmp_path / "out" / "predictions.csv").prompt.tolist() == ["segment crack", "trace joint line"]


def test_a_photo_keeps_its_name_when_another_of_its_stem_comes(tmp_path, predictor):
    save(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), out)
    save(tmp_path / "in" / "a.jpg", (64, 40))
    _, _, renamed = predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), out)
    assert renamed == {str(tmp_path / "in" / "a.jpg"): "a-2"}
    assert read_mask(out / "a__segment_crack.png").shape == (40, 64)


def test_probabilities_overlays_coco_and_log(tmp_path, predictor):
    path = save(tmp_path / "in" / "a.png")
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    asked = wanted(["segment crack"], probs=True, overlay=draw_overlay, log=str(log))
    for kind in ("rle", "polygons"):
        predict_files(predictor, [tmp_path / "in"], asked, out, kind)
        coco = COCO(out / "predictions.coco.json")
        (annotation,) = coco.loadAnns(coco.getAnnIds())
        assert coco.imgs[1]["file_name"] == str(path) and coco.cats[1]["name"] == "segment crack"
        mask = read_mask(out / "a__segment_crack.png")
        assert np.array_equal(coco.annToMask(annotation) * 255, mask)
    (answer,) = predictor.predict(path, ["segment crack"])
    with Image.open(out / "a__segment_crack__probs.png") as image:
        stored = np.asarray(image)
        assert stored.dtype == np.uint16 and np.abs(stored / 65535 - answer.probs).max() <= 0.5 / 65535 + 1e-6
    with Image.open(out / "a__segment_crack__overlay.jpg") as image:
        assert image.size == (64, 40)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["prompt"] for entry in entries] == ["segment crack"] and entries[0]["model"] == "fake"
    assert predictor.backend.images == 2  # the second kind read the masks that were there
    table, _, _ = predict_files(predictor, [out], wanted(["segment taping area"]), out)
    assert len(table) == 3  # masks of another prompt are photos like any


@pytest.mark.fault("full disk", SAME)
def test_a_full_disk_ends_it_and_nothing_is_lost(tmp_path, predictor, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png")
    real = files._write

    def full(path, picture):
        if "b__" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return real(path, picture)

    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), tmp_path / "out")
    monkeypatch.undo()
    predict_files(predictor, [tmp_path / "in"], wanted(["segment crack"]), tmp_path / "out")
    assert predictor.backend.images == 3 and len(written(tmp_path / "out")) == 2


@pytest.mark.fault("two at once", REFUSED)
def test_two_at_once_in_one_folder_are_refused(tmp_path, predictor):
    save(tmp_path / "a.png")
    code = (
        "import sys, time; from pathlib import Path; from drywall_seg.runs import single_writer\n"
        "with single_writer(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is writing"):
            predict_files(predictor, [tmp_path / "a.png"], wanted(["segment crack"]), tmp_path / "out")
    finally:
        other.kill()
        other.wait()


@pytest.mark.fault("own files", SAME)
def test_a_torn_line_of_a_killed_run_is_none(tmp_path, predictor):
    save(tmp_path / "a.png")
    for _ in range(2):
        predict_files(predictor, [tmp_path / "a.png"], wanted(["segment crack"]), tmp_path / "out")
        (line,) = (tmp_path / "out" / FOLDER).glob("000000.jsonl")
        line.write_text(line.read_text()[:-20])
    assert predictor.backend.images == 2
