"""Two processes on one machine, as `torchrun` starts them, against one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drywall_seg.runs import single_writer
from tests.faults.table import REFUSED, SAME
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import TIMES, same_weights

pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("drywall-seg")


def train(project, processes, run_name, program=("--no-python", str(COMMAND)), **settings):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    parameters = [text for name, value in settings.items() for text in ("-p", name, str(value))]
    command = [*launcher, *program] if processes > 1 else [str(COMMAND)]
    command += ["train", *parameters, "--run-name", run_name]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=300)


def losses(project, run_name):
    return pd.read_csv(project / "outputs" / run_name / "steps.csv").loss.to_numpy()


@pytest.mark.fault("machines", SAME)
@pytest.mark.parametrize("stored_views", [0, 1])
def test_two_processes_and_one_have_the_same_losses_and_metrics(project, tmp_path, stored_views):
    tiny_clipseg_folder(tmp_path / "tiny", real=False)
    settings = {
        "model": tmp_path / "tiny", "epochs": 4, "batch_size": 17, "learning_rate": 1e-4, "stored_views": stored_views,
        "negative_share": 0.3, "mine_every": 2, "ema_decay": 0.9, "checkpoint_steps": 3,
    }  # fmt: skip
    for processes, name in ((1, "one"), (2, "two")):
        ran = train(project, processes, name, **settings)
        assert ran.returncode == 0, ran.stderr[-3000:]
    one, two = losses(project, "one"), losses(project, "two")
    assert len(one) >= 20 and np.abs(one - two).max() <= 1e-5
    assert np.ptp(one) > 1e-3
    tables = [pd.read_csv(project / "outputs" / name / "history.csv") for name in ("one", "two")]
    assert np.allclose(
        *(table.drop(columns=[*TIMES, "best"]) for table in tables), atol=1e-4
    )  # the last bits of a weight can move a pixel over the threshold
    assert ran.stdout.count("outputs/two") == 1  # one of them speaks
    hard = [pd.read_csv(project / "outputs" / name / "hard_negatives.csv") for name in ("one", "two")]
    assert len(hard[0]) == len(hard[1]) and np.allclose(hard[0].false_alarm, hard[1].false_alarm, atol=1e-5)


STOP = """
import sys
from drywall_seg.cli import main
from drywall_seg.training import loop

step = loop.optimiser_step

def stop(training, *rest):
    assert len(training.losses) < 3, "stopped"
    return step(training, *rest)

loop.optimiser_step = stop
main()
"""


@pytest.mark.fault("killed training", SAME)
def test_two_processes_stop_and_go_on(project, tmp_path):
    """The compact model's BatchNorms agree at every state, so that a run that goes on is the run that never stopped."""
    settings = {"image_size": 64, "train_size": 64, "batch_size": 24, "checkpoint_steps": 1, "epochs": 2}
    whole = train(project, 2, "whole", **settings)
    assert whole.returncode == 0 and "BatchNorms see 12 images at once: not the same as batches of 24" in whole.stdout
    (tmp_path / "stop.py").write_text(STOP)
    stopped = train(project, 2, "stopped", [str(tmp_path / "stop.py")], **settings)
    folder = project / "outputs" / "stopped"
    assert stopped.returncode and "stopped" in stopped.stderr and list((folder / "resume").glob("step-00000003-*"))
    resumed = train(project, 2, "stopped", **settings)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert same_weights(project / "outputs" / "whole", folder)


@pytest.mark.fault("two at once", REFUSED)
def test_a_second_training_of_a_run_is_refused(project):
    folder = project / "outputs" / "mine"
    with single_writer(folder):
        ran = train(project, 1, "mine", epochs=0, image_size=64)
    assert ran.returncode == 1 and f"{folder}: another process is writing this run" in ran.stderr
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert train(project, 1, "mine", epochs=0, image_size=64).returncode == 0
    assert json.loads((folder / "config.json").read_text())["epochs"] == 0
