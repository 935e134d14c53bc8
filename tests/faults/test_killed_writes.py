"""Each step of the pipeline is killed at each of its writes, in four phases of it, and started again."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from drywall_seg.data.manifest import build_manifest
from drywall_seg.runs import hash_file
from tests.conftest import ROOT
from tests.data.exports import annotation, image, rle, write_coco, write_export
from tests.data.test_coco import BLOB, RING
from tests.faults.table import SAME
from tests.models.clipseg_folders import tiny_clipseg_folder

pytestmark = pytest.mark.slow
PHASES = {"before it", "before its rename", "after its rename"}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Ten images with cracks, of which one gets a joint line by an overlay, and what else the steps read."""
    root = tmp_path_factory.mktemp("data")
    images = [image(n, f"{n}_jpg.rf.{n:04x}.png", (40, 64)) for n in range(1, 11)]
    shapes = [[RING], [], rle(np.pad(BLOB, ((0, 16), (0, 32))))]
    annotations = [annotation(n, n, shapes[n % 3], (5, 5, 30, 20)) for n in range(1, 11)]
    export = root / "export" / "cracks.coco"
    for part, which in {"train": slice(0, 6), "valid": slice(6, 8), "test": slice(8, 10)}.items():
        write_export(export, images[which], annotations[which], part)
    joined = image(1, "a", (40, 64), sha256=hash_file(export / "train" / images[0]["file_name"]), label="joint_line")
    write_coco(root / "lines.coco.json", [joined], [annotation(1, 1, [RING])], [{"id": 1, "name": "joint_line"}])
    (root / "photos" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{name}.png")
    tiny_clipseg_folder(root / "tiny", real=False)
    build_manifest(root / "export", root / "manifest", split="publisher")
    return root


@pytest.mark.fault("killed writing", SAME)
@pytest.mark.parametrize("step", ["prepare", "predict", "inspect", "evaluate", "train"])
def test_killed_at_any_write_it_ends_with_the_same_files(step, data_root, tmp_path, tally):
    command = [sys.executable, "-m", "tests.faults.kills", step, str(data_root), str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lives = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert {life["phase"] for life in lives} >= PHASES and len(lives) >= 3 * 10
    for life in lives:
        assert life["killed"] and life["again"] == 0, f"{life}\n{ran.stderr[-2000:]}"
        assert not life["differ"] and not life["lost"] and not life["more"], life
    tally(SAME, len(lives))
