import shutil
from pathlib import Path

import pytest

from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.sample import write_sample
from tests.faults.counting import (  # noqa: F401  hooks, and a fixture of all
    pytest_collection_modifyitems,
    pytest_runtest_logreport,
    pytest_terminal_summary,
    tally,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory):
    """The drawn sample export; only read."""
    return write_sample(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="session")
def sample_manifest(sample_root, tmp_path_factory):
    return build_manifest(sample_root, tmp_path_factory.mktemp("processed") / "sample")


@pytest.fixture
def project(tmp_path, monkeypatch, sample_root):
    """A project's folder of its own, with the sample drawn, as the working directory."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(ROOT / "data" / "annotations", tmp_path / "data" / "annotations")
    shutil.copytree(sample_root, tmp_path / "data" / "sample")
    monkeypatch.chdir(tmp_path)
    return tmp_path
