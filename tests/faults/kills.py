"""Kills a step of the pipeline at each of its writes and starts it again; started by the tests, since it forks.

`python -m tests.faults.kills STEP DATA_ROOT FOLDER` runs the step undisturbed, and then, for each of its writes and
each of `PHASES`, from nothing to the SIGKILL and again to the end. It prints a line of JSON for each: which files
differ from the undisturbed run's, which are not there, and which nobody asked for.
"""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from drywall_seg import runs
from drywall_seg.runs import read_json

PHASES = ("before it", "in the middle of it", "before its rename", "after its rename")

_replace, _whole_file, _lock = os.replace, runs.whole_file, threading.Lock()
_counts = {"writes": 0, "renames": 0}
_die_at = None, 0
"""Phase and number of the write at which this process dies."""


def _count(name):
    with _lock:
        _counts[name] += 1
        return _counts[name]


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # another thread may be the one that goes on until the signal comes


@contextmanager
def _watched_file(path):
    number = _count("writes")
    if _die_at == (PHASES[0], number):
        _die()
    with _whole_file(path) as partial:
        yield partial


def _watched_replace(source, target):
    number = _count("renames")
    if _die_at == (PHASES[1], number):
        if os.path.isfile(source):  # of a folder all files were written before
            os.truncate(source, os.path.getsize(source) // 2)
        _die()
    if _die_at == (PHASES[2], number):
        _die()
    _replace(source, target)
    if _die_at == (PHASES[3], number):
        _die()


runs.whole_file, os.replace = _watched_file, _watched_replace  # before the others take them from there

from drywall_seg.data.manifest import build_manifest  # noqa: E402
from drywall_seg.evaluation import evaluate  # noqa: E402
from drywall_seg.inference import Predictor  # noqa: E402
from drywall_seg.inference.files import Wanted, predict_files  # noqa: E402
from drywall_seg.inference.journal import FOLDER as JOURNAL  # noqa: E402
from drywall_seg.training.run import train_run  # noqa: E402
from drywall_seg.visualization.panels import draw_overlay  # noqa: E402
from drywall_seg.visualization.site_report import inspect_site  # noqa: E402
from tests.inference.test_predict import Fake  # noqa: E402
from tests.training.runs import TIMES, config_of  # noqa: E402


def prepare(data_root, folder):
    build_manifest(data_root / "export", folder, overlays=[data_root / "lines.coco.json"])


def predict(data_root, folder):
    wanted = Wanted(("segment crack", "segment taping area"), probs=True, overlay=draw_overlay)
    predict_files(Predictor(Fake()), [data_root / "photos"], wanted, folder, coco="rle")


def inspect(data_root, folder):
    inspect_site(Predictor(Fake()), data_root / "photos", folder, ["segment crack", "trace joint line"])


def scored(data_root, folder):
    evaluate.run_predictor = lambda _: Predictor(Fake())
    evaluate.footprint, evaluate.measure_runtime = lambda *_: {}, lambda *_: pd.DataFrame(columns=["batch_size"])
    evaluate.evaluate_run(config_of(run_name="run", outputs_root=str(folder)), manifest_of(data_root))


def train(data_root, folder):
    settings = {"model": str(data_root / "tiny"), "trainable": "decoder", "stored_views": 0, "checkpoint_steps": 1}
    config = config_of(run_name="run", outputs_root=str(folder), epochs=1, batch_size=6, **settings)
    train_run(config, manifest_of(data_root))


STEPS = {"prepare": prepare, "predict": predict, "inspect": inspect, "evaluate": scored, "train": train}


def manifest_of(data_root):
    """The manifest of the export; it was made before."""
    return build_manifest(data_root / "export", data_root / "manifest", split="publisher")


def run(step, data_root, folder, die_at=(None, 0)):
    """Runs a step in a child, and returns its exit status: -9 where it died."""
    child = os.fork()
    if not child:
        global _die_at
        _die_at = die_at
        _counts.update(dict.fromkeys(_counts, 0))
        try:
            STEPS[step](data_root, folder)
        except BaseException:  # whatever it is, a child must not go on as its parent
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder):
    """What is in each file, as far as it is to be the same; not the journal, which says more after a second start."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): stable(path) for path in files if path.parent.name != JOURNAL}


def stable(path):
    """A file's contents without seconds and memory, which no two runs share."""
    if path.suffix == ".csv":
        table = pd.read_csv(path).drop(columns=[*TIMES, "median_s", "p95_s"], errors="ignore")
        return sorted(table.to_csv(index=False).splitlines())  # the order of photos is that of their ends
    if path.name in ("metrics.json", "environment.json"):
        others = ("seconds", "footprint", "git_commit")
        return {name: value for name, value in read_json(path).items() if name not in others}
    if path.name == "report.html":
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text())  # when it was made
    return path.read_bytes()


def main(step, data_root, folder):
    data_root, folder = Path(data_root), Path(folder) / "work"  # always the same: some files tell where they are
    STEPS[step](data_root, folder)  # here, so that the children need not import all anew
    counts, whole = dict(_counts), contents(folder)
    every = step in ("prepare", "predict", "inspect")  # the others take longer
    for phase in PHASES if every else PHASES[:1] + PHASES[2:]:
        for number in range(1, counts["writes" if phase == PHASES[0] else "renames"] + 1):
            shutil.rmtree(folder)
            killed, again = run(step, data_root, folder, (phase, number)), run(step, data_root, folder)
            got = contents(folder) if folder.is_dir() else {}
            line = {"phase": phase, "number": number, "killed": killed == -signal.SIGKILL, "again": again}
            line["differ"] = sorted(name for name in whole.keys() & got.keys() if whole[name] != got[name])
            line |= {"lost": sorted(whole.keys() - got.keys()), "more": sorted(got.keys() - whole.keys())}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
