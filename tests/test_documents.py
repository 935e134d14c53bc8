"""Every command of the documents is read and checked; the slow test runs each, in a copy of the project."""

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from functools import cache

import click
import pytest
import yaml
from PIL import Image

from drywall_seg.cli import _collect, main
from drywall_seg.config import resolve_config
from drywall_seg.notebooks import check_parameters, declared_parameters, notebook_file
from drywall_seg.settings import RunConfig
from tests import documents
from tests.documents import BIN, DOCUMENTS, EXPANDED, OTHERS_RUN, ROOT, blocks, commands, fill_in, read_command

LIBRARY = ROOT / "lib" / "drywall_seg"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WITH_COMMANDS = [path for path in DOCUMENTS if commands(path) or blocks(path, "python")]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def the_command(name):
    assert name in main.commands, f"drywall-seg has no command {name!r}"
    return main.commands[name]


@cache
def make(target):
    """What make would do, of which nothing is done."""
    done = ["-o", ".venv/ready", "-o", ".venv/browser-ready", "-o", ".venv-colab/ready"]
    result = subprocess.run(["make", "--dry-run", *done, target], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"make {target}: {result.stderr}"
    return result.stdout.replace("\\\n", " ").splitlines()


# How a command is checked without running it, by its program. One that is not here fails.


def check_drywall_seg(name, *arguments):
    """Click's own parsing, then what the command itself would refuse before it starts."""
    try:
        given = the_command(name).make_context(name, list(arguments)).params
    except click.ClickException as error:
        raise AssertionError(f"drywall-seg {name}: {error.format_message()}") from error
    if name == "run":
        check_notebook(given["notebook"], _collect(given["parameters"], given["run_name"]))
    if name == "train":
        resolve_config(**_collect(given["parameters"], given["run_name"]))
    if name == "sweep":
        from drywall_seg.sweep import read_sweep

        assert len(read_sweep(ROOT / given["file"])[1]) > 1
    if name in ("predict", "inspect"):
        from drywall_seg.inference.scales import FORMS, choose_scale
        from drywall_seg.prompts import slugs

        slugs(list(given["prompts"]))
        choose_scale(**{form: given[form] for form in FORMS if form in given})
    if name == "gallery":
        from drywall_seg.visualization.sheet_rows import ORDERS

        assert given["order"] in {None, *ORDERS}
    if name == "benchmark":
        from drywall_seg.benchmark import COMPARISONS

        assert given["only"] is None or given["only"] in COMPARISONS


def check_notebook(name, parameters):
    path = notebook_file(name)
    check_parameters([path], parameters)
    settings = declared_parameters(path) | parameters
    resolve_config(**{n: v for n, v in settings.items() if n in RunConfig.__dataclass_fields__})


def check_papermill(*arguments):
    from papermill.cli import papermill

    given = papermill.make_context("papermill", list(arguments)).params
    check_notebook(given["notebook_path"], dict(given["parameters"]))


def check_torchrun(*arguments):
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    assert given.no_python and given.training_script == BIN + "drywall-seg"
    check_drywall_seg(*given.training_script_args)


def check_python(first, *rest):
    if first != "-m":
        assert (ROOT / first).is_file()
    elif rest[:2] == ("pip", "install"):
        extras = re.fullmatch(r"\.\[(\w+)\]", rest[2])
        assert extras and not rest[3:]
        assert extras[1] in PYPROJECT["project"]["optional-dependencies"], f"no extra {extras[1]!r}"
    elif rest[0] == "pytest":
        assert all((ROOT / word).exists() for word in rest[1:] if "/" in word)
    else:
        assert importlib.util.find_spec(rest[0])


def check_make(target):
    assert target in OTHERS_RUN | EXPANDED, f"say in tests/documents.py whether `make {target}` is run here"
    make(target)


def check_head(number, file):
    assert re.fullmatch(r"-\d+", number)


CHECKS = {
    "make": check_make,
    "head": check_head,
    BIN + "drywall-seg": check_drywall_seg,
    BIN + "papermill": check_papermill,
    BIN + "torchrun": check_torchrun,
    BIN + "python": check_python,
}


def test_there_are_commands():
    assert sum(len(commands(path)) for path in DOCUMENTS) > 40


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_command_can_be_right(path):
    for command in commands(path):
        words = tuple(map(fill_in, command.words))
        assert not documents.left_open(words), f"{command}: {documents.left_open(words)} stands for nothing"
        assert words[0] in CHECKS, f"{command}: there is no check of {words[0]!r}"
        CHECKS[words[0]](*words[1:])
    for block in blocks(path, "python"):
        tree = ast.parse(fill_in(block))
        for node in (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (".venv/bin/drywall-seg predicd x", "no command 'predicd'"),
        (".venv/bin/drywall-seg predict x --prompt a --uot y", "No such option"),
        (".venv/bin/drywall-seg predict x --prompt a", "Missing option '--out'"),
        (".venv/bin/drywall-seg run 02_train -p lernig_rate 1", "did you mean 'learning_rate'"),
        (".venv/bin/drywall-seg run 02_train -p image_size 100", "image_size is 100"),
        (".venv/bin/drywall-seg run 07_dream", "no notebook '07_dream'"),
        (".venv/bin/drywall-seg train -p split foto", "split is 'foto'"),
        (".venv/bin/drywall-seg gallery RUN", "stands for nothing"),
        (".venv/bin/python -m pip install '.[gpus]'", "'gpus'"),
        ("make tset", "whether `make tset` is run here"),
        ("curl http://example.org", "no check of 'curl'"),
        ("ls | head", "write a command a line"),
    ],
)
def test_a_command_that_cannot_be_right_fails(tmp_path, monkeypatch, line, message):
    path = tmp_path / "x.md"
    path.write_text(f"```bash\n{line}\n```\n")
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    with pytest.raises((AssertionError, ValueError, RuntimeError), match=re.escape(message)):
        test_every_command_can_be_right(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_what_is_named_in_the_text_exists(path):
    for span in documents.code_spans(path):
        words = span.removeprefix(BIN).split()
        if words[0] == "make" and len(words) == 2 and re.fullmatch(r"[a-z/.-]+", words[1]):
            make(words[1])
        if words[0] == "drywall-seg" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            options = {text for option in the_command(words[1]).params for text in option.opts}
            assert {word for word in words if word.startswith("-")} <= options, span
        for word in words:
            if re.fullmatch(r"(lib|tests|docs|sweeps|notebooks|constraints)/[\w./-]+", word):
                assert (ROOT / word).exists(), span


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path):
    for link in documents.links(path):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(target), link


def test_every_document_is_found_from_the_readme():
    found, new = set(), {ROOT / "README.md"}
    while new:
        path = new.pop()
        found.add(path)
        targets = {(path.parent / link.partition("#")[0]).resolve() for link in documents.links(path)}
        new |= {target for target in targets if target.suffix == ".md" and target.is_file()} - found
    assert set(DOCUMENTS) <= found | {ROOT / "outputs" / "README.md"}


@cache
def said():
    """All that the library, the Makefile and the page's programs may say: a text for each, with `…` for a value."""
    texts = (ROOT / "Makefile").read_text().splitlines()
    for path in LIBRARY.rglob("*.py"):
        tree = ast.parse(path.read_text())
        bodies = (n.body for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)))
        docs = {body[0].value for body in bodies if body and isinstance(body[0], ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
                texts.append(node.value)
    return texts


def is_said(quotation):
    """Says whether the pieces of a quotation, between its `…`, stand in a text in order; one must tell something."""
    pieces = quotation.split("…")
    pattern = re.compile(".*".join(map(re.escape, pieces)), re.DOTALL)
    return len(max(pieces, key=len)) > 8 and any(pattern.search(text) for text in said())


def test_every_error_text_is_the_sources():
    quotations = documents.quotations(ROOT / "docs" / "troubleshooting.md")
    assert len(quotations) >= 40
    assert not [quotation for quotation in quotations if not is_said(quotation)]
    assert not is_said("the loss is … at lerning_rate …; lower it") and not is_said("…: no")


def test_the_picture_is_of_this_library(tmp_path):
    """Rooms and modules are there, and the picture is what its script draws now."""
    script = ROOT / "docs" / "how_it_works.py"
    spec = importlib.util.spec_from_file_location("how_it_works", script)
    spec.loader.exec_module(picture := importlib.util.module_from_spec(spec))
    for room, (*_, modules) in picture.ROOMS.items():
        for name in re.findall(r"\w+(?!\w*:)", modules):
            assert list(LIBRARY.glob(f"{room}/{name}.py")) or (LIBRARY / "models" / f"{name}.py").is_file(), name
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name in re.findall(r"[\w-]+", " ".join(picture.COMMANDS.values())):
        assert name in notebooks or name in main.commands, name
    with Image.open(ROOT / "docs" / "how_it_works.png") as image:
        drawn_by = image.text["Source"]
    assert drawn_by == hashlib.sha256(script.read_bytes()).hexdigest(), "run docs/how_it_works.py again"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = PYPROJECT["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


# From here on commands are run: in a copy of the project, where the sample is smaller.


class Copy:
    """The copy, and what has been run there: a command that two documents share is run once."""

    def __init__(self, folder):
        self.folder, self.done = folder, {}
        self.declared = {path.stem: set(declared_parameters(path)) for path in (ROOT / "notebooks").glob("*.ipynb")}
        env = {"PYTHONPATH": f"{folder / 'lib'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
        self.env = {**os.environ, **env}

    def run(self, command):
        """Runs a command made small; returns what went wrong, empty for nothing."""
        words = tuple(fill_in(word, self.folder) for word in command.words)
        if words[0] == "make":
            return self.make(words[1]) if words[1] in EXPANDED else ""
        network = {"roboflow", "drive"} & set(words)  # asked through a proxy where nobody listens
        env = command.env | ({"HTTPS_PROXY": "http://127.0.0.1:9"} if network else {})
        expected = (1, "the proxy does not let through") if network else (0, "")
        return self.shell(documents.made_small(words, self.declared), env, expected)

    def make(self, target):
        """Runs the lines that a target consists of."""
        wrong = []
        for line in make(target):
            if not line.lstrip().startswith((BIN, "MALLOC")):
                continue  # says something, or looks for Chromium
            if "tests.browser" in line and not shutil.which("chromium"):
                continue
            env, words = re.fullmatch(r"((?:[A-Z_]+=\S* )*)(.*)", line.strip()).groups()
            if words.startswith(BIN + "drywall-seg"):
                wrong.append(self.run(read_command(f"make {target}", env + words)))
            else:
                wrong.append(self.shell(["bash", "-c", words], {}))
        if target == "train-compact":  # the rest of the documents is about the model that ships
            shutil.rmtree(self.folder / "lib/drywall_seg/models/compact_weights")
            shutil.copytree(LIBRARY / "models/compact_weights", self.folder / "lib/drywall_seg/models/compact_weights")
        return "\n".join(filter(None, wrong))

    def shell(self, words, env, expected=(0, "")):
        key = (*words, *env)
        if key not in self.done:
            started, quiet = time.monotonic(), {"capture_output": True, "text": True, "timeout": 300}
            ran = subprocess.run(words, cwd=self.folder, env=self.env | env, **quiet)
            print(f"{time.monotonic() - started:5.1f} s  {' '.join(words)}")
            right = ran.returncode == expected[0] and expected[1] in ran.stderr
            self.done[key] = "" if right else f"{words}: ended with {ran.returncode}: {ran.stderr[-1500:]}"
        return self.done[key]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents") / "project"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    replace(folder / "lib/drywall_seg/data/sample.py", r"(?m)^(COPIES = .*)\) \* 6, (.*)\) \* 6\}", r"\1) * 2, \2)}")
    replace(
        folder / "lib/drywall_seg/presets.py", r"image_size=480,\n    train_size=384,", "image_size=64, train_size=64,"
    )
    for sweep in (folder / "sweeps").glob("*.yaml"):
        sweep.write_text(json.dumps(small_sweep(yaml.safe_load(sweep.read_text()))))
    copy = Copy(folder)
    assert not copy.shell([BIN + "drywall-seg", "sample", "../exports"], {})
    write_photos(folder.parent)
    write_corrections(folder.parent)
    from tests.models.clipseg_folders import tiny_clipseg_folder

    tiny_clipseg_folder(folder.parent / "clipseg", real=False)
    mine = next(command for command in commands(ROOT / "README.md") if command.words[-1] == "mine")
    assert not copy.run(mine)  # which documents speak of before they say how it came about
    return copy


def replace(path, pattern, by):
    """Makes the copy's sample and the small model's presets smaller."""
    text, count = re.subn(pattern, by, path.read_text())
    assert count == 1, f"{path.name} has changed: no {pattern}"
    path.write_text(text)


def small_sweep(sweep):
    """The same name, first preset and first value of each setting, with a small training and without evaluation."""
    parameters = sweep["parameters"] | {"data_root": "../exports", "epochs": 1, "image_size": 64, "train_size": 64}
    parameters["batch_size"] = 8
    grid = {name: values[:1] for name, values in sweep.get("grid", {}).items()}
    small = {"name": sweep["name"], "parameters": parameters, "grid": grid, "seeds": sweep["seeds"][:1]}
    if "presets" in sweep:
        small |= {"presets": sweep["presets"][:1], "parameters": parameters | {"model": "../clipseg"}}
    return small | {"variants": sweep.get("variants", [{}])[-1:], "evaluate": False}


def write_photos(folder):
    (folder / "photos").mkdir()
    (folder / "bucket").mkdir()
    found = sorted((folder / "exports" / "cracks.coco" / "train").glob("*.jpg"))[:2]
    for source, name in zip(found, ("wall.jpg", "other.jpg"), strict=True):
        shutil.copy(source, folder / "photos" / name)
    shutil.copytree(folder / "photos", folder / "project" / "bucket" / "photos")


def write_corrections(folder):
    """What the viewer saves where somebody found a mask of the exports right."""
    photo = sorted((folder / "exports" / "cracks.coco" / "train").glob("*.jpg"))[0]
    width, height = Image.open(photo).size
    correction = {
        "sha256": hashlib.sha256(photo.read_bytes()).hexdigest(), "name": photo.name, "prompt": "segment crack",
        "label": "crack", "height": height, "width": width, "verdict": "right", "threshold": 0.43, "painted": False,
        "time": "2026-11-26T10:00:00.000Z", "model": "d0448d", "factor": 1, "size": [height, width],
        "counts": [40, 400, height * width - 440],
    }  # fmt: skip
    content = {"format": "drywall-seg corrections 1", "made": correction["time"], "corrections": [correction]}
    (folder / "corrections.json").write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name_of)
def test_every_command_runs(path, copy):
    labels = copy.folder / "data" / "labels.yaml"
    for block in blocks(path, "yaml"):
        labels.write_text(block)
    wrong = [copy.run(command) for command in commands(path)]
    labels.unlink(missing_ok=True)
    wrong += [copy.shell([BIN + "python", "-c", fill_in(block)], {}) for block in blocks(path, "python")]
    assert not list(filter(None, wrong)), "\n\n".join(filter(None, wrong))


@pytest.mark.slow
def test_a_command_that_fails_is_found(copy):
    wrong = copy.run(read_command("x", ".venv/bin/drywall-seg predict gone.jpg --prompt a --out b"))
    assert "gone.jpg: no such file or folder" in wrong and "ended with 1" in wrong
