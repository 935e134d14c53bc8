"""What holds for the project as a whole."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "drywall_seg"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted(LIBRARY.rglob("*.py"))


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


def test_environment_yml_has_the_same_floors():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda, pip = [d for d in environment["dependencies"] if isinstance(d, str)], environment["dependencies"][-1]["pip"]
    assert pip == [*PYPROJECT["project"]["dependencies"], "."]
    assert f"python{PYPROJECT['project']['requires-python']}" in conda


def test_dependencies_are_floors():
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PYPROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", requirement), requirement


def test_tested_versions_are_exact_and_cover_the_dependencies():
    lines = [s for s in (ROOT / "constraints/tested.txt").read_text().splitlines() if s and not s.startswith("#")]
    pinned = {canonical(line.partition("==")[0]) for line in lines}
    assert all("==" in line for line in lines)
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["project"]["optional-dependencies"]["dev"]
    assert {canonical(re.split(r"[\[>]", w)[0]) for w in wanted} <= pinned


@pytest.mark.slow
def test_an_install_over_colabs_versions_moves_none_of_them(tmp_path):
    """A floor above one of them would: pip then finds no way to keep to the constraints. (torch: the CPU's here.)"""
    wanted = [".", "torch==2.13.0", "--constraint", "constraints/colab.txt"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", *wanted]
    run = [*command, "--report", str(tmp_path / "report.json")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())["install"]
    chosen = {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in report}
    pins = dict(line.split("==") for line in (ROOT / "constraints/colab.txt").read_text().split() if "==" in line)
    pins = {canonical(name): version for name, version in pins.items()}
    both = chosen.keys() & pins.keys()
    assert {"numpy", "pandas", "ipywidgets", "transformers", "pillow"} <= both
    assert {name: chosen[name] for name in both} == {name: pins[name] for name in both}


def test_the_repository_is_named_in_one_place():
    repository = PYPROJECT["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    named = {}
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        found = re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/|\)|\"|\s|\.git)", path.read_text())
        named[path.name] = set(found)
    assert set(named) == {"README.md", *(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))}
    assert all(found == {repository} for found in named.values()), named


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_modules_are_thin(path):
    assert len(path.read_text().splitlines()) <= 250
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node, clean=False) or ""
            assert node.end_lineno - node.lineno - doc.count("\n") <= 60, node.name


def test_the_library_grows_no_further_unnoticed():
    """What comes next makes room first (docs/decisions.md)."""
    assert sum(len(path.read_text().splitlines()) for path in MODULES) <= 14_250


# What each part may import of the library: only what stands before it.
ORDER = [
    "project",
    "prompts",
    "paraphrases",
    "runs",
    "images",
    "presets",
    "settings",
    "config",
    "models",
    "data",
    "inference",
    "evaluation",
    "training",
]
ORDER += ["visualization", "notebooks", "sweep"]
ORDER += ["benchmark_clipseg", "benchmark_large", "benchmark", "cli_photos", "cli"]


def part(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_imports_point_one_way(path):
    own = path.relative_to(LIBRARY).with_suffix("").parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("drywall_seg.") and own != "__init__":
                assert ORDER.index(part(name)) <= ORDER.index(own), f"{own} imports {name}"


def test_the_tree_names_every_module():
    tree = (ROOT / "docs" / "tree.md").read_text()
    missing = [p.name for p in MODULES if p.name != "__init__.py" and f" {p.name} " not in tree]
    assert not missing


def test_no_photograph_and_no_pickle_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    suffixes = (".jpg", ".jpeg", ".bin", ".pt", ".pth", ".pkl", ".ckpt")
    assert not [name for name in listed.stdout.splitlines() if name.lower().endswith(suffixes) or ".rf." in name]
