import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.faults.table import SAME
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import TIMES, same_weights

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.mark.fault("killed training", SAME)
@pytest.mark.parametrize("model", ["compact", "clipseg"])
def test_killed_twenty_times_it_ends_with_the_same_weights_to_the_bit(model, sample_root, tmp_path, tally):
    if model == "clipseg":
        tiny_clipseg_folder(tmp_path / "tiny", real=False)
    command = [sys.executable, "-m", "tests.faults.lives", model, str(sample_root), str(tmp_path), "20"]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lives = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert sum(life["killed"] is not None for life in lives) == 20
    steps = [life["steps"] for life in lives]
    assert len(set(steps)) >= 6  # it died at many places
    whole, through = (tmp_path / "outputs" / name for name in ("whole", "killed"))
    assert same_weights(whole, through)
    first, second = (pd.read_csv(folder / "history.csv").drop(columns=TIMES) for folder in (whole, through))
    assert first.equals(second)
    for name in ("steps.csv", "checkpoint/thresholds.json", "hard_negatives.csv"):
        texts = {path.read_text() if path.is_file() else None for path in (whole / name, through / name)}
        assert len(texts) == 1, name
    left = [path for path in through.rglob("*") if path.name.startswith((".partial", ".old")) or "resume" in path.parts]
    assert not left
    tally(SAME, 21)  # the last time after the last state
