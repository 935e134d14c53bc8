"""Two processes at one run: the second is refused before it has changed anything, and let in once the first is gone."""

import subprocess
import sys

import pytest
from PIL import Image

from drywall_seg.evaluation.evaluate import evaluate_run
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
from drywall_seg.training.run import train_run
from drywall_seg.visualization.site_report import inspect_site
from tests.data.exports import contents
from tests.faults.table import READ, REFUSED, SAME
from tests.inference.test_predict import Fake, photo
from tests.training.runs import config_of

# Without the library, which takes a second to import: the lock is all that matters.
HOLD = """
import fcntl, sys
with open(sys.argv[1] + "/.lock", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
RACE = """
import pathlib, sys, time
from drywall_seg.runs import single_writer
print("ready", flush=True)
sys.stdin.read()
try:
    with single_writer(pathlib.Path(sys.argv[1])):
        print("in", flush=True)
        while not pathlib.Path(sys.argv[1], "stop").exists():
            time.sleep(0.01)
except ValueError as error:
    print(error, flush=True)
"""


def start(code, folder):
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def held(tmp_path):
    """A run's folder that another process is writing, and that process."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".partial-1-metrics.json").write_text("the other's")
    with start(HOLD, folder) as other:
        assert other.stdout.readline() == "held\n"
        yield folder, other
        other.kill()


def train(folder):
    train_run(config_of(run_name=folder.name, outputs_root=str(folder.parent), epochs=0), None)


def score(folder):
    evaluate_run(config_of(run_name=folder.name, outputs_root=str(folder.parent)), None)


def predict(folder):
    Image.fromarray(photo(40, 64)).save(folder.parent / "a.png")
    predict_files(Predictor(Fake()), [folder.parent / "a.png"], Wanted(("segment crack",)), folder)


def inspect(folder):
    Image.fromarray(photo(40, 64)).save(folder.parent / "a.png")
    inspect_site(Predictor(Fake()), folder.parent / "a.png", folder, ["segment crack"])


@pytest.mark.fault("two at once", REFUSED)
@pytest.mark.parametrize("begin", [train, score, predict, inspect])
def test_the_second_is_refused_and_changes_nothing(held, begin):
    folder, _ = held
    before = contents(folder)
    with pytest.raises(ValueError, match="another process is writing this run; give another run_name") as failure:
        begin(folder)
    assert str(folder) in str(failure.value) and contents(folder) == before


@pytest.mark.fault("two at once", SAME)
def test_the_second_is_let_in_when_the_first_is_killed(held):
    folder, other = held
    other.kill()
    other.wait()
    predict(folder)
    assert (folder / "a__segment_crack.png").is_file() and not list(folder.glob(".partial-*"))


@pytest.mark.fault("two at once", READ)
def test_another_name_is_another_run(held):
    folder, _ = held
    predict(folder.with_name("Run"))
    assert (folder.with_name("Run") / "a__segment_crack.png").is_file()


@pytest.mark.fault("two at once", REFUSED)
def test_of_several_that_start_in_the_same_moment_one_is_let_in(tmp_path, tally):
    several = [start(RACE, tmp_path / "run") for _ in range(3)]
    assert all(one.stdout.readline() == "ready\n" for one in several)
    for one in several:
        one.stdin.close()
    said = [one.stdout.readline() for one in several]
    (tmp_path / "run" / "stop").touch()
    assert [one.wait() for one in several] == [0] * 3
    assert said.count("in\n") == 1
    assert sum("another process is writing this run" in line for line in said) == 2
    tally(REFUSED, 2)
    tally(READ, 1)
