import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from drywall_seg.images import read_mask
from drywall_seg.inference.journal import FOLDER
from tests.faults.table import SAME

pytestmark = pytest.mark.slow
PHOTOS, BROKEN, KILLS = 1000, 50, 10
PROMPTS = ("segment crack", "segment taping area")
CODE = f"""
import sys
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
predictor = Predictor.load("compact", image_size=64)
predictor.presence_cut = 0.0
_, errors, _ = predict_files(predictor, [sys.argv[1]], Wanted({PROMPTS}, 0.2), sys.argv[2])
print(*errors.values(), sep="\\n")
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A thousand drawn walls of different sizes, fifty of which are broken in one of four ways."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(7)
    broken = set(rng.choice(PHOTOS, BROKEN, replace=False).tolist())
    for number in range(PHOTOS):
        size = tuple(int(side) for side in rng.integers(60, 200, 2))
        image = Image.new("RGB", size, tuple(rng.integers(150, 230, 3).tolist()))
        points = [tuple(point) for point in (rng.random((4, 2)) * size).tolist()]
        ImageDraw.Draw(image).line(points, fill=(60, 55, 50), width=int(rng.integers(1, 8)))
        path = folder / f"{number % 7}" / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path)
        if number in broken:
            whole = path.read_bytes()
            path.write_bytes([b"", whole[: len(whole) // 2], b"no photo" * 99, whole[:20]][number % 4])
    return folder, broken


def start(folder, out, log):
    command = [sys.executable, "-c", CODE, str(folder), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True)


def lines(out):
    return sum(part.read_bytes().count(b"\n") for part in Path(out, FOLDER).glob("*.jsonl"))


def wait_for(process, out, count):
    while lines(out) < count:
        assert process.poll() is None
        time.sleep(0.01)


def anonymous_memory(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def masks(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in Path(out).rglob("*.png")}


@pytest.mark.fault("killed prediction", SAME)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_ten_times_every_photo_has_its_mask_and_memory_is_flat(photos, tmp_path, tally):
    folder, broken = photos
    every = 2 * (PHOTOS - BROKEN) + BROKEN
    with open(tmp_path / "whole.txt", "w") as log:
        undisturbed = start(folder, tmp_path / "whole", log)
        wait_for(undisturbed, tmp_path / "whole", every // 10)
        first = anonymous_memory(undisturbed.pid)
        wait_for(undisturbed, tmp_path / "whole", every - 20)
        last = anonymous_memory(undisturbed.pid)
        assert undisturbed.wait() == 0
    assert last < 1.05 * first, f"{first / 1e6:.0f} MB at photo 100, {last / 1e6:.0f} MB at the end"

    rng = random.Random(3)
    for target in sorted(rng.sample(range(20, every - 100), KILLS)):
        with open(tmp_path / "killed.txt", "w") as log:
            process = start(folder, tmp_path / "killed", log)
            wait_for(process, tmp_path / "killed", target)
            time.sleep(rng.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    with open(tmp_path / "last.txt", "w") as log:
        assert start(folder, tmp_path / "killed", log).wait() == 0

    expected, got = masks(tmp_path / "whole"), masks(tmp_path / "killed")
    assert len(expected) == 2 * (PHOTOS - BROKEN) and got == expected
    some = [read_mask(tmp_path / "killed" / name) for name in list(got)[::97]]
    assert any(mask.any() for mask in some)
    left = [path.name for path in (tmp_path / "killed").rglob(".partial-*")]
    assert not left
    table = pd.read_csv(tmp_path / "killed" / "predictions.csv")
    named = table[table["mask"].isna()]
    assert sorted(int(Path(photo).stem) for photo in named.photo) == sorted(broken)
    said = (tmp_path / "last.txt").read_text()
    assert all(said.count(f"{number:04d}.jpg: ") == 1 for number in broken)
    same = ["photo", "prompt", "presence", "area_share", "doubt", "threshold", "warnings"]
    whole = pd.read_csv(tmp_path / "whole" / "predictions.csv")
    order = ["photo", "prompt"]
    pd.testing.assert_frame_equal(
        table[same].sort_values(order, ignore_index=True), whole[same].sort_values(order, ignore_index=True)
    )
    tally(SAME, KILLS)
