import os
from pathlib import Path

import pytest
from markupsafe import Markup


@pytest.fixture
def figures(capsys):
    """`figures("text")`: printed, whatever becomes of the test."""

    def say(line):
        with capsys.disabled():
            print(f"\n{line}")

    return say


@pytest.fixture
def keep_picture():
    """`keep_picture(page, "name")`: a picture of the whole page in the folder that LOOK names, to be looked at."""

    def keep(page, name):
        if folder := os.environ.get("LOOK"):
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep
