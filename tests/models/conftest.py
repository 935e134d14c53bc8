import pytest

from drywall_seg.models import load_segmenter
from tests.models.clipseg_folders import tiny_clipseg_folder


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory):
    """A folder as the hub's, only to be read."""
    return tiny_clipseg_folder(tmp_path_factory.mktemp("clipseg") / "hub")


@pytest.fixture
def tiny(hub_folder):
    return load_segmenter(hub_folder)
