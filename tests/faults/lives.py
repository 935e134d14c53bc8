"""Trains a run to its end through many deaths; started by the tests as a program of its own, since it forks.

`python -m tests.faults.lives MODEL DATA_ROOT FOLDER N_KILLS` trains `whole` in one go and `killed` through as many
SIGKILLs, and prints a line of JSON for each life: how it was ended, and how many steps were stored then.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import drywall_seg.runs
from drywall_seg.data.manifest import build_manifest
from drywall_seg.training import fit, resume
from drywall_seg.training.run import train_run
from tests.training.runs import config_of, small

WAYS = ("at a random moment", "before a rename", "after a rename", "in the middle of a state's file")
LAST = "after the last state"


def settings_of(model, folder):
    if model == "compact":
        return {"ema_decay": 0.9, "epochs": 16, "batch_size": 6}
    stored = {"stored_views": 2, "mine_every": 2, "negative_share": 0.4, "trainable": "decoder"}
    return {"model": str(folder / "tiny"), "epochs": 16, "batch_size": 6, "ema_decay": 0.9, **stored}


def live(config, manifest, way, moment):
    """Trains until the end, or until it dies in the way given, at the n-th rename or state where it is one of those."""
    count = 0

    def due():
        nonlocal count
        count += 1
        return count == moment

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    replace, save_file = os.replace, resume.save_file

    def replace_and_die(source, target):
        now = due()
        if now and way == WAYS[1]:
            die()
        replace(source, target)
        if now:
            die()

    def save_half(tensors, path, metadata):
        save_file(tensors, path, metadata)
        if due():
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    save_training = fit.save_training

    def save_and_die(training, folder):
        save_training(training, folder)
        if len(training.history) == config.epochs:
            die()

    if way in WAYS[1:3]:
        drywall_seg.runs.os.replace = replace_and_die
    elif way == WAYS[3]:
        resume.save_file = save_half
    elif way == LAST:
        fit.save_training = save_and_die
    train_run(config, manifest)


def run_life(config, manifest, way=None, moment=0):
    """Lives in a child of its own; returns whether it came to the end, and its seconds."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        try:
            live(config, manifest, way, moment)
        except BaseException:  # whatever it is, a child must not go on as its parent
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if way == WAYS[0]:
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a life failed by itself ({way})")
    return os.WIFEXITED(status), time.monotonic() - started


def main(model, data_root, folder, n_kills):
    folder, rng = Path(folder), random.Random(42)
    manifest = small(build_manifest(Path(data_root), folder / "processed"), 18)
    settings = settings_of(model, folder) | {"outputs_root": str(folder / "outputs"), "checkpoint_steps": 1}
    ended, seconds = run_life(config_of(run_name="whole", **settings), manifest)
    assert ended
    config = config_of(run_name="killed", **settings)
    kills = lives = 0
    while kills < n_kills:
        way = WAYS[kills % len(WAYS)]
        moment = {
            WAYS[0]: rng.uniform(0, 0.1 * seconds),
            WAYS[3]: rng.randint(1, 3),
        }.get(way, rng.choice((1, 1, 2, 3, 4, 5, 7, 9)))  # a step has one rename, an epoch's end seven more
        ended, _ = run_life(config, manifest, way, moment)
        lives += 1
        if ended and lives > 4 * n_kills:
            raise SystemExit("it ended before it could be killed that often")
        kills += not ended
        states = sorted((folder / "outputs" / "killed" / "resume").glob("step-*"))
        steps = int(states[-1].name[5:13]) if states else 0
        print(json.dumps({"killed": None if ended else way, "steps": steps}), flush=True)
    ended, _ = run_life(config, manifest, LAST)
    assert not ended
    ended, _ = run_life(config, manifest)
    assert ended


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
