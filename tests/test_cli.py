import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from papermill.cli import _resolve_type
from PIL import Image

from drywall_seg.cli import entry, main, parse_value
from drywall_seg.images import read_mask


def command(*arguments, cwd=None):
    run = [sys.executable, "-c", "from drywall_seg.cli import entry; entry()", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    "text", ["True", "False", "None", "8", "-3", "2e-5", "0.4", "photo", "", "1_000", "nan", "../shared/data", "true"]
)
def test_values_are_parsed_as_papermill_does(text):
    ours, theirs = parse_value(text), _resolve_type(text)
    assert (type(ours), repr(ours)) == (type(theirs), repr(theirs))


def test_a_parameter_given_twice_is_an_error(project):
    for extra in (["--run-name", "b"], ["-p", "run_name", "b"]):
        result = CliRunner().invoke(main, ["run", "01_prepare", "-p", "run_name", "a", *extra])
        assert result.exit_code == 2
        assert "run_name is given twice" in result.output


def test_an_unknown_parameter_names_the_close_match(project):
    result = command("run", "02_train", "-p", "lernig_rate", "1", cwd=project)
    assert result.returncode == 1
    assert result.stderr.strip().startswith("error: 02_train: no parameter 'lernig_rate'; did you mean 'learning_rate'")
    assert "Traceback" not in result.stderr
    assert not (project / "outputs").exists()
    result = command("train", "-p", "lernig_rate", "1", cwd=project)
    assert result.returncode == 1
    assert "did you mean 'learning_rate'" in result.stderr


def test_train_does_what_02_train_does(project):
    small = ["-p", "image_size", "64", "-p", "train_size", "64", "-p", "epochs", "1"]
    result = CliRunner().invoke(main, ["train", *small, "--run-name", "t"], catch_exceptions=False)
    assert result.exit_code == 0
    assert (project / "outputs" / "t" / "checkpoint" / "model.safetensors").is_file()


def test_sample(tmp_path):
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "s")], catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "s" / "cracks.coco" / "train" / "_annotations.coco.json").is_file()


def test_predict_a_phone_photo(tmp_path):
    exif = Image.new("RGB", (1, 1)).getexif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "IMG_1.jpg", exif=exif)
    result = command("predict", tmp_path / "IMG_1.jpg", "--prompt", "segment crack", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["IMG_1__segment_crack.png"]
    assert read_mask(tmp_path / "out" / "IMG_1__segment_crack.png").shape == (80, 60)


def test_predict_a_folder_with_a_broken_photo(tmp_path):
    photos = tmp_path / "in"
    photos.mkdir()
    for name in ("a.jpg", "a.png", "c.png"):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(photos / name)
    (photos / "b.jpg").write_bytes(Path(photos / "a.jpg").read_bytes()[:200])
    (photos / "IMG_2.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    result = command("predict", photos, "--prompt", "segment crack", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "b.jpg" in result.stderr
    assert "IMG_2.HEIC: cannot be read as an image (HEIC and AVIF are not read here: save it as JPEG)" in result.stderr
    assert "nothing found" not in result.stderr
    assert "saved as a-2" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "a-2__segment_crack.png",
        "a__segment_crack.png",
        "c__segment_crack.png",
    ]


def test_a_strange_sentence_that_finds_nothing_is_mentioned(tmp_path):
    Image.fromarray(np.full((60, 80, 3), 200, np.uint8)).save(tmp_path / "wall.png")
    asked = ["--prompt", "segment outlet", "--prompt", "segment crack", "--out", tmp_path / "out"]
    result = command("predict", tmp_path / "wall.png", *asked)
    said = [line for line in result.stderr.splitlines() if "nothing found" in line]
    ours = "segment crack, segment taping area, trace joint line"
    assert result.returncode == 0 and said == [
        f"'segment outlet': nothing found; this project's own sentences are {ours}"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.jpg", "--prompt", "segment crack"], "gone.jpg"),
        (["gone.jpg", "--prompt", "a/b", "--prompt", "a b"], "saved as"),
        (["gone.jpg", "--prompt", "crack", "--model", "."], "neither segmenter.json"),
        (["gone.jpg", "--prompt", "crack", "--model", "demo"], "demo: no such folder, and not the form of a hub id"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(tmp_path, arguments, message):
    result = command("predict", *arguments, "--out", "out", cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_log_monitor_and_inspect(tmp_path, sample_root):
    photos = sample_root / "cracks.coco" / "test"
    log = tmp_path / "log.jsonl"
    asked = ["--prompt", "segment crack", "--out", tmp_path / "out", "--log", log, "--coco", "polygons", "--overlays"]
    result = command("predict", photos, *asked)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "out").glob("*__overlay.jpg")) and (tmp_path / "out" / "predictions.coco.json").is_file()
    result = command("monitor", log, "--out", tmp_path / "log.png")
    assert result.returncode == 0 and "brightness" in result.stdout, result.stderr
    lines = command("monitor", log, "--last", 3).stdout.splitlines()[1:]
    assert len(lines) == 6 and {line.split()[2] for line in lines} == {"3"}, lines
    with Image.open(tmp_path / "log.png") as image:
        assert image.format == "PNG"
    report = tmp_path / "report"
    result = command("inspect", photos, "--out", report, "--mm-per-pixel", "0.5", "--no-flips")
    assert result.returncode == 0, result.stderr
    assert {path.name for path in report.iterdir()} >= {"report.html", "findings.csv", "photos.csv", "review.csv"}
    result = command("inspect", photos, "--out", report, "--two-points", "1,2,3")
    assert result.returncode == 1 and "two_points '1,2,3'" in result.stderr and "Traceback" not in result.stderr


def test_export_and_predict_with_it(tmp_path, sample_root):
    pytest.importorskip("onnxruntime")
    photos = sample_root / "cracks.coco" / "test"
    result = command("export", "compact", tmp_path / "m.onnx")
    assert result.returncode == 0, result.stderr
    for model in ("compact", tmp_path / "m.onnx"):
        asked = ["--prompt", "segment crack", "--model", model, "--out", tmp_path / f"{Path(model).name}.out"]
        assert command("predict", photos, *asked).returncode == 0
    for mask in (tmp_path / "compact.out").glob("*.png"):
        one, two = np.asarray(Image.open(mask)), np.asarray(Image.open(tmp_path / "m.onnx.out" / mask.name))
        assert (one != two).mean() < 1e-3


def test_ctrl_c_is_said_in_a_line(monkeypatch, capsys, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("drywall_seg.data.sample.write_sample", stop)
    monkeypatch.setattr(sys, "argv", ["drywall-seg", "sample", str(tmp_path / "s")])
    with pytest.raises(SystemExit) as ended:
        entry()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip().startswith("stopped; no file is half written.")
