import ast
import json
import sys
import types
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from drywall_seg.cli import main
from drywall_seg.config import resolve_config
from drywall_seg.images import read_mask
from drywall_seg.notebooks import (
    PIPELINE,
    NotebookError,
    check_parameters,
    declared_parameters,
    notebook_file,
    photos_of,
    run_notebook,
    say_device,
)
from drywall_seg.settings import RunConfig

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LOOKING = {"other_run", "corrections", "drive", "roboflow"}
"""Parameters for a person who looks at results or brings data: not of a run."""
FAST = {"image_size": 64, "epochs": 1}


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def python(cell):
    """A cell's code without IPython's own lines."""
    return "\n".join("    pass" if s.lstrip().startswith(("!", "%")) else s for s in cell.source.splitlines())


def test_there_are_six():
    assert [p.stem[:2] for p in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestForm:
    def test_it_says_what_it_reads_writes_and_takes(self, path):
        first = nbformat.read(path, as_version=4).cells[0]
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
        for word in ("*Reads*", "*Writes*", "*Takes about*"):
            assert word in first.source

    def test_it_is_committed_without_output(self, path):
        assert all(not c.outputs and c.execution_count is None for c in code_cells(path))

    def test_all_start_with_the_same_set_up_cell(self, path):
        assert code_cells(path)[0].source == code_cells(NOTEBOOKS[0])[0].source

    def test_it_calls_and_shows(self, path):
        for cell in code_cells(path):
            if "parameters" not in cell.metadata.get("tags", ()):  # that one is a form: a line for each field
                assert len(cell.source.splitlines()) <= 15
            tree = ast.parse(python(cell))
            assert not [
                n
                for n in ast.walk(tree)
                if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While))
            ]
            assert "sys.path" not in cell.source
            magics = [line.strip() for line in cell.source.splitlines() if line.lstrip().startswith(("!", "%"))]
            assert all(line.startswith(("!git clone", "%pip install", "%cd", "%matplotlib")) for line in magics)

    def test_every_parameter_is_used_and_has_one_name_everywhere(self, path):
        declared = declared_parameters(path)
        used = {
            node.id
            for cell in code_cells(path)
            for node in ast.walk(ast.parse(python(cell)))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        assert set(declared) <= used
        assert set(declared) - {*LOOKING, "photos", "prompts", "mm_per_pixel", "coco"} <= set(
            RunConfig.__dataclass_fields__
        )
        assert {"run_name", "outputs_root"} <= set(declared)

    def test_each_step_has_prose_before_it(self, path):
        cells = nbformat.read(path, as_version=4).cells
        for before, cell in zip(cells, cells[1:], strict=False):
            if cell.cell_type == "code":
                assert before.cell_type == "markdown" or "parameters" in before.metadata.get("tags", ())


def test_run_all_declares_what_its_notebooks_do():
    for name in PIPELINE:
        of_all = {*declared_parameters(notebook_file("all")), "other_run", "corrections"}
        assert set(declared_parameters(notebook_file(name))) <= of_all


def write_notebook(folder, name, *cells):
    """Writes a notebook of (source, tags) into a project of its own."""
    made = []
    for source, tags in cells:
        cell = nbformat.v4.new_code_cell(source)
        cell.metadata["tags"] = list(tags)
        made.append(cell)
    (folder / "notebooks").mkdir(exist_ok=True)
    for stem in ("00_run_all", name):
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), folder / "notebooks" / f"{stem}.ipynb")


PARAMETERS = ('outputs_root = "outputs"\nrun_name = "demo"\nseed = 1', ["parameters"])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([("a = 1", [])], "0 cells are tagged 'parameters'"),
        ([("a = 1", ["parameters"]), ("b = 1", ["parameters"])], "2 cells are tagged"),
        ([("a = 1\nb = a + 1", ["parameters"])], "'b = a \\+ 1' is not a name and a literal"),
        ([("print(1)", ["parameters"])], "parameters cell"),
    ],
)
def test_a_parameters_cell_that_is_none(tmp_path, monkeypatch, cells, message):
    write_notebook(tmp_path, "01_x", *cells)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotebookError, match=message):
        run_notebook("01_x")
    assert not (tmp_path / "outputs").exists()


def test_a_line_with_two_equal_signs_is_a_parameter_too(tmp_path):
    write_notebook(tmp_path, "01_x", ('a = "x=y"  # @param {type:"string"}\nb = -1.5', ["parameters"]))
    assert declared_parameters(tmp_path / "notebooks" / "01_x.ipynb") == {"a": "x=y", "b": -1.5}


def test_an_unknown_parameter_is_refused_before_anything_starts(project, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(NotebookError, match="'lernig_rate'; did you mean 'learning_rate'"):
        run_notebook("02_train", {"lernig_rate": 1})
    with pytest.raises(NotebookError, match="no notebook '02_trian'.*02_train"):
        run_notebook("02_trian")
    with pytest.raises(NotebookError, match="no parameter 'photos'"):
        check_parameters([notebook_file(name) for name in PIPELINE], {"photos": "x"})
    assert not (project / "outputs").exists()


def test_a_failing_cell_is_one_clear_error_and_the_copy_stays(tmp_path, monkeypatch):
    write_notebook(tmp_path, "01_x", PARAMETERS, ("print('before')", []), ("raise KeyError(f'no {seed}')", []))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotebookError, match=r"01_x failed in cell \d+: KeyError: 'no 7'") as failure:
        run_notebook("01_x", {"seed": 7})
    copy = tmp_path / "outputs" / "demo" / "notebooks" / "01_x.ipynb"
    assert str(copy) in str(failure.value)
    assert "before" in copy.read_text()
    write_notebook(tmp_path, "01_x", PARAMETERS, ("print('mended')", []))
    assert "mended" in run_notebook("01_x", {"seed": 7}).read_text()


def test_an_interrupted_notebook_is_not_done(tmp_path, monkeypatch):
    write_notebook(tmp_path, "01_x", PARAMETERS, ("raise KeyboardInterrupt", []), ("print('after')", []))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotebookError, match="01_x was interrupted|KeyboardInterrupt"):
        run_notebook("01_x")


def test_a_kernel_that_dies_is_one_clear_error(tmp_path, monkeypatch):
    write_notebook(tmp_path, "01_x", PARAMETERS, ("import os\nos.kill(os.getpid(), 9)", []))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotebookError, match="01_x: its kernel died, as where memory runs out"):
        run_notebook("01_x")


def test_only_a_finished_run_with_its_results_is_not_run_again(tmp_path, monkeypatch):
    write_notebook(tmp_path, "01_x", PARAMETERS, ("open('count', 'a').write('x')", []))
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "demo"

    def runs(name="all", parameters=None, again=False):
        run_notebook(name, parameters, again)
        return len((tmp_path / "count").read_text())

    assert [runs(), runs()] == [1, 2]  # there are no results yet
    for result in ("metrics.json", "masks/a.png", "panels/a.png"):
        (run / result).parent.mkdir(exist_ok=True)
        (run / result).touch()
    assert [runs(), runs(again=True), runs(parameters={"seed": 2}), runs(parameters={"seed": 2})] == [2, 3, 4, 4]
    (run / "notebooks" / "00_run_all.ipynb").write_text("{")  # cut while it was written
    assert runs(parameters={"seed": 2}) == 5
    (run / "panels" / "a.png").unlink()
    assert runs(parameters={"seed": 2}) == 6
    assert [runs("01_x"), runs("01_x")] == [7, 8]


def test_a_value_that_cannot_be_right_is_refused_before_anything_starts(project, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("started"))
    for name, value in {"outputs_root": 5, "run_name": "a/b", "epochs": "many"}.items():
        with pytest.raises(ValueError, match=name):
            run_notebook("02_train", {name: value})


def test_away_from_the_project_its_own_notebooks_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert notebook_file("all") == NOTEBOOKS[0]


def pictures(copy):
    """How many PNGs an executed copy shows."""
    outputs = [output for cell in code_cells(copy) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture
def colab(tmp_path_factory, monkeypatch):
    """Stands in for Colab as papermill's child kernel sees it: google.colab is there, and nobody answers it."""
    folder = tmp_path_factory.mktemp("colab")
    (folder / "google" / "colab").mkdir(parents=True)
    (folder / "google" / "colab" / "__init__.py").touch()
    late = "class TimeoutException(Exception):\n    pass\n\n\ndef {}(key):\n    raise TimeoutException(key)\n"
    for module, function in (("userdata", "get"), ("drive", "mount"), ("auth", "authenticate_user")):
        (folder / "google" / "colab" / f"{module}.py").write_text(late.format(function))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab-external-images_20260801")


SECRETS = (
    "ROBOFLOW_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GITHUB_TOKEN WANDB_API_KEY KAGGLE_KEY "
    "GOOGLE_API_KEY DATABASE_PASSWORD PIP_INDEX_URL"
).split()


@pytest.fixture
def secrets(monkeypatch):
    """Ten secrets in the environment, as a person may have them there; by name."""
    planted = {name: f"planted-{number}-0f3c9a7be2" for number, name in enumerate(SECRETS)}
    planted["PIP_INDEX_URL"] = f"http://user:{planted['PIP_INDEX_URL']}@127.0.0.1:9/simple"
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    return planted


def betrayed(project, *texts):
    """Names of planted secrets of which a file of the project, or a text, holds the telling part."""
    everything = [path.read_bytes() for path in project.rglob("*") if path.is_file()]
    everything += [text.encode() for text in texts]
    parts = {name: f"planted-{number}-".encode() for number, name in enumerate(SECRETS)}
    return [name for name, part in parts.items() if any(part in content for content in everything)]


def test_the_whole_pipeline_headless(project, colab, secrets):
    """00 to 04 through papermill on the sample, as in Colab, then 05 on the run's checkpoint; no secret comes out."""
    arguments = ["run", "all", "--run-name", "first"]
    for name, value in FAST.items():
        arguments += ["-p", name, str(value)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = project / "outputs" / "first"
    assert sorted(p.stem[:2] for p in (folder / "notebooks").iterdir()) == ["00", "01", "02", "03", "04"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["labels"]["crack"]["n_images"] >= 5
    crack = f"mean IoU {metrics['labels']['crack']['mean_iou']:.3f}, mean Dice"
    said = result.output.splitlines()[-7:]
    assert said[0].startswith("crack ") and crack in said[0] and "centre-line F1" in said[2]
    assert [Path(line.split()[-1]).exists() for line in said[3:]] == 4 * [True]
    masks = list((folder / "masks").iterdir())
    assert len(masks) == sum(label["n_images"] for label in metrics["labels"].values())
    assert {max(read_mask(mask).shape) for mask in masks} == {320}
    assert sorted(p.name for p in (folder / "panels").iterdir()) == ["crack.png", "joint_line.png", "taping_area.png"]
    shown = {copy.stem[:2]: pictures(copy) for copy in (folder / "notebooks").iterdir()}
    assert shown == {"00": 3, "01": 1, "02": 2, "03": 5, "04": 4}
    assert "dws-sheet-figures" in (folder / "notebooks" / "04_visualize_panels.ipynb").read_text()  # its first page

    copy = run_notebook("05_predict_photos", {"run_name": "first", "photos": "data/sample/cracks.coco/test"})
    assert copy.parent == folder / "notebooks"
    assert pictures(copy) == 1
    predicted = list((folder / "predictions").glob("*.png"))
    photos = [p for p in (project / "data/sample/cracks.coco/test").iterdir() if p.suffix == ".jpg"]
    assert len(predicted) == 3 * len(photos)
    report = (folder / "predictions" / "report" / "report.html").read_text()
    assert all(photo.name in report for photo in photos)
    arguments = ["predict", str(photos[0]), "--prompt", "segment crack", "--out", "masks", "--log", "masks/log.csv"]
    said = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert said.exit_code == 0
    assert (project / "masks" / "log.csv").is_file()
    assert betrayed(project, result.output, said.output) == []


def test_without_a_gpu_it_says_what_will_be_slow(monkeypatch):
    compact, clipseg = resolve_config(), resolve_config(preset="clipseg_decoder")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no GPU: training takes about 3 min for the drawn sample" in say_device(compact)
    assert "training CLIPSeg on the full exports takes hours" in say_device(clipseg)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    assert say_device(clipseg) == "on Tesla T4"


def test_every_notebook_asks_for_a_t4():
    for path in NOTEBOOKS:
        metadata = nbformat.read(path, as_version=4).metadata
        assert (metadata.accelerator, metadata.colab.gpuType) == ("GPU", "T4")


def test_photos_are_a_path_or_are_uploaded_in_colab(tmp_path, monkeypatch):
    assert photos_of(str(tmp_path), tmp_path / "uploaded") == tmp_path
    with pytest.raises(ValueError, match="Colab alone"):
        photos_of("upload", tmp_path / "uploaded")
    chosen = {"a b.jpg": b"one", "../c.jpg": b"two"}
    colab = types.SimpleNamespace(files=types.SimpleNamespace(upload=lambda: chosen))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert photos_of("upload", tmp_path / "uploaded") == tmp_path / "uploaded"
    assert sorted(path.name for path in (tmp_path / "uploaded").iterdir()) == ["a b.jpg", "c.jpg"]
    assert not (tmp_path / "c.jpg").exists()
    chosen.clear()
    with pytest.raises(ValueError, match="no file was chosen"):
        photos_of("upload", tmp_path / "uploaded")


def test_in_colabs_child_kernel_a_key_is_asked_for_in_plain_words(project, colab, monkeypatch):
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    parameters = {"roboflow": "team/cracks/3", "data_root": "data/raw"}
    with pytest.raises(NotebookError, match="no key: set ROBOFLOW_API_KEY in the environment"):
        run_notebook("01_prepare", parameters)
    assert not (project / "data" / "raw").exists()


def test_a_key_is_in_no_file_and_in_no_error(project, colab, secrets, monkeypatch, capfd):
    """With a key, and a proxy where nobody listens in the place of the network."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(NotebookError, match="Roboflow team/cracks/3") as failure:
        run_notebook("01_prepare", {"roboflow": "team/cracks/3", "data_root": "data/raw"})
    assert list((project / "outputs").rglob("01_prepare.ipynb"))
    assert betrayed(project, str(failure.value), *capfd.readouterr()) == []
    (project / "planted").write_text(f"key={secrets['ROBOFLOW_API_KEY']}")
    assert betrayed(project) == ["ROBOFLOW_API_KEY"]  # it would be seen
