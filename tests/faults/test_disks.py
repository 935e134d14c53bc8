"""A disk that is full, or cannot be written: one error names the file, and the same command goes on once there is room.

A disk of its own is mounted for it: nothing here rests on rights, since root has all.
"""

import errno
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from drywall_seg.data.corrections import import_corrections
from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.sample import write_sample
from drywall_seg.data.unpack import unpack_zip
from drywall_seg.evaluation.evaluate import evaluate_run
from drywall_seg.inference import Predictor
from drywall_seg.inference.files import Wanted, predict_files
from drywall_seg.inference.journal import Journal
from drywall_seg.inference.monitor import append_entries
from drywall_seg.models.weights import write_weights
from drywall_seg.runs import whole_folder, write_csv, write_json, write_mask
from drywall_seg.training.resume import load_state, save_state
from drywall_seg.training.run import train_run
from drywall_seg.visualization.panels import save_figure
from tests.data.exports import annotation, contents, image, write_export
from tests.data.test_corrections import correction, saved
from tests.data.test_unpack import USUAL, zip_of
from tests.faults.table import READ, REFUSED, SAME
from tests.inference.test_predict import Fake, photo
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import config_of, same_weights, small

FULL = "No space left on device|File too large"
NOISE = np.random.default_rng(0).integers(0, 2, (400, 400), np.uint8) * np.uint8(255)


def mount(*arguments):
    """Says whether it could be mounted: root alone may, and not in every container."""
    return bool(shutil.which("mount")) and subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A folder whose disk `full(room)` fills but for so many bytes; where none can be mounted, files may not grow."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=16m", "none", str(folder))
    if not mounted:
        monkeypatch.setenv("RANK", "1")  # no bars: what they are shown on is a file too

    @contextmanager
    def full(room=0):
        if not mounted:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            return
        free = os.statvfs(folder)
        with open(folder / ".filler", "wb") as filler:
            filler.write(bytes(max(0, free.f_bavail * free.f_frsize - room)))
        try:
            yield
        finally:
            (folder / ".filler").unlink()

    yield SimpleNamespace(folder=folder, full=full, mounted=mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def big_state(folder):
    save_state(folder, 2, {"a": torch.ones(50_000)}, {"step": 2})


def big_journal(folder):
    journal = Journal(str(folder))
    for number in range(300):
        journal.add([{"photo": f"{number}" + "x" * 200, "prompt": "p", "mask": ""}])


def big_folder(path):
    with whole_folder(path) as partial:
        (partial / "model").mkdir()
        write_json(partial / "model" / "a.json", ["x" * 100_000])


WRITERS = {  # what it writes, and the name that its error is to hold
    "mask": (lambda d: write_mask(d / "mask.png", NOISE), "mask.png"),
    "table": (lambda d: write_csv(d / "per_image.csv", pd.DataFrame({"a": np.arange(20_000) / 7})), "per_image.csv"),
    "metrics": (lambda d: write_json(d / "metrics.json", ["x" * 100_000]), "metrics.json"),
    "weights": (lambda d: write_weights(nn.Linear(200, 200), d / "model.safetensors"), "model.safetensors"),
    "training state": (big_state, "resume"),
    "journal": (big_journal, "000000.jsonl"),
    "log": (lambda d: append_entries(d / "log.jsonl", [{"a": "x" * 100_000}]), "log.jsonl"),
    "checkpoint": (lambda d: big_folder(d / "checkpoint"), "a.json"),
}


@pytest.mark.fault("full disk", REFUSED)
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [0, 8192], ids=["no room", "room for a part"])
def test_a_writer_on_a_full_disk(disk, name, room):
    write, named = WRITERS[name]
    write_json(disk.folder / "kept.json", "kept")
    save_state(disk.folder, 1, {"a": torch.ones(9)}, {"step": 1})
    before = contents(disk.folder)
    with disk.full(room), pytest.raises(OSError, match=FULL) as failure:
        write(disk.folder)
    assert failure.value.errno in (errno.ENOSPC, errno.EFBIG) and named in str(failure.value)
    after = contents(disk.folder)
    assert {name: after[name] for name in before} == before
    # What is added to line by line may end in a part of one, which its reader leaves out.
    assert all(name.endswith(".jsonl") for name in after.keys() - before.keys())
    assert load_state(disk.folder)[1] == {"step": 1}
    write(disk.folder)


# --- Steps, with room for more and more of what they write


def step_prepare(root, out):
    build_manifest(root / "exports", out)


def step_predict(root, out):
    wanted = Wanted(("segment crack", "segment taping area"), probs=True)
    predict_files(Predictor(Fake()), [root / "photos"], wanted, out, coco="rle")


STEPS = {"prepare": step_prepare, "predict": step_predict}
MORE_ROOM = [0, 20_000, 100_000, 200_000, 300_000, 400_000, 500_000]
ROOMS = [0, 4096, 8192, 12_288, 16_384, 20_480, 24_576, 28_672, 40_960]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    images = [image(number, size_hw=(60, 90)) for number in range(1, 5)]
    write_export(root / "exports" / "cracks.coco", images, [annotation(1, 1, [[5, 5, 60, 8, 30, 50]])])
    (root / "photos").mkdir()
    for name in "abc":
        Image.fromarray(photo(40, 64)).save(root / "photos" / f"{name}.png")
    return root


def made(out):
    """What was made, without what a second start adds to or what holds seconds."""
    return {n: data for n, data in contents(out).items() if not n.startswith((".", "predictions.csv"))}


@pytest.mark.fault("full disk", SAME)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_goes_on_when_there_is_room_again(disk, data, tmp_path, tally, step):
    STEPS[step](data, tmp_path / "whole")
    out, n_full = disk.folder / "out", 0
    for room in ROOMS:
        try:
            with disk.full(room):
                STEPS[step](data, out)
        except OSError as error:
            n_full += 1
            assert error.errno in (errno.ENOSPC, errno.EFBIG) and str(out) in str(error)
        whole = made(tmp_path / "whole")
        assert all(whole[name] == content for name, content in made(out).items() if name.endswith(".png"))
    STEPS[step](data, out)
    assert made(out) == made(tmp_path / "whole")
    assert n_full >= 1 + disk.mounted
    tally(SAME, len(ROOMS))


@pytest.mark.slow
@pytest.mark.fault("full disk", SAME)
def test_a_training_and_its_scores_go_on_when_there_is_room_again(disk, sample_manifest, tmp_path, tally):
    if not disk.mounted:
        pytest.skip("nothing can be mounted here")
    settings = {"model": str(tiny_clipseg_folder(tmp_path / "tiny", real=False)), "trainable": "decoder"}
    settings |= {"run_name": "run", "stored_views": 0, "epochs": 2, "batch_size": 4, "checkpoint_steps": 1}
    manifest, n_full = small(sample_manifest, 6), 0

    def train_and_score(outputs):
        config = config_of(outputs_root=str(outputs), **settings)
        train_run(config, manifest)
        evaluate_run(config, manifest)

    train_and_score(tmp_path)
    for room in MORE_ROOM:
        try:
            with disk.full(room):
                train_and_score(disk.folder)
        except OSError as error:
            n_full += 1
            assert error.errno in (errno.ENOSPC, errno.EFBIG) and str(disk.folder / "run") in str(error)
    train_and_score(disk.folder)
    assert same_weights(tmp_path / "run", disk.folder / "run")
    whole, full = (made(folder / "run") for folder in (tmp_path, disk.folder))
    assert whole.keys() == full.keys()
    for name in whole:
        assert whole[name] == full[name] or name.endswith((".csv", ".json")), name  # these hold seconds and paths
    assert n_full >= 3
    tally(SAME, len(MORE_ROOM))


# --- What can only be read


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder one that can only be read, until the test ends."""
    mounted = []

    def make(folder):
        if not mount("--bind", str(folder), str(folder)):
            pytest.skip("nothing can be mounted here")
        mounted.append(folder)
        assert mount("-o", "remount,bind,ro", str(folder))
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def trained_into(outputs):
    return config_of(run_name="run", outputs_root=str(outputs), epochs=0)


READ_ONLY = {  # what is to be written into a folder that can only be read
    "a manifest": lambda root, out: build_manifest(root / "exports", out / "manifest"),
    "a manifest over one": lambda root, out: build_manifest(root / "exports", out),
    "masks": lambda root, out: step_predict(root, out),
    "masks in a folder below": lambda root, out: step_predict(root, out / "below"),
    "a log": lambda root, out: append_entries(out / "log.jsonl", [{"a": 1}]),
    "a training": lambda root, out: train_run(trained_into(out), None),
    "scores": lambda root, out: evaluate_run(trained_into(out), None),
    "weights": lambda root, out: write_weights(nn.Linear(2, 2), out / "model.safetensors"),
    "a training state": lambda root, out: save_state(out, 1, {"a": torch.ones(1)}, {}),
    "corrections": lambda root, out: import_corrections(saved(root, correction()), out),
    "an unpacked zip": lambda root, out: unpack_zip(root / "the.zip", out / "cracks.coco"),
    "a drawn sample": lambda root, out: write_sample(out / "sample"),
    "a figure": lambda root, out: save_figure(plt.figure(), out / "figure.png"),
}


@pytest.mark.fault("read-only", REFUSED)
@pytest.mark.parametrize("name", READ_ONLY)
def test_a_folder_that_can_only_be_read_is_named(data, tmp_path, read_only, name):
    root, out = shutil.copytree(data, tmp_path / "data"), tmp_path / "out"
    (root / "the.zip").write_bytes(zip_of(USUAL))
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    before = contents(out)
    read_only(out)
    with pytest.raises(OSError, match="Read-only file system") as failure:
        READ_ONLY[name](root, out)
    assert str(out) in str(failure.value) and contents(out) == before


@pytest.mark.fault("read-only", READ)
def test_data_that_can_only_be_read_are_all_that_is_needed(data, tmp_path, read_only):
    root = read_only(shutil.copytree(data, tmp_path / "data"))
    step_prepare(root, tmp_path / "manifest")
    step_predict(root, tmp_path / "masks")
    assert len(list((tmp_path / "manifest" / "masks").rglob("*.png"))) == 4
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12


@pytest.mark.fault("read-only", READ)
def test_a_manifest_that_is_made_can_be_read_where_nothing_can_be_written(data, tmp_path, read_only):
    made_before = build_manifest(data / "exports", tmp_path / "manifest")
    read_only(tmp_path / "manifest")
    assert build_manifest(data / "exports", tmp_path / "manifest").table.equals(made_before.table)
