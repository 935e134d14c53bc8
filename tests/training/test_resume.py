import json
import subprocess
import sys

import pytest
import torch

from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.runs import single_writer
from drywall_seg.training import loop
from drywall_seg.training.fit import fit, training_data
from drywall_seg.training.resume import load_state, save_state
from drywall_seg.training.state import save_training, start_accelerator, start_training
from tests.faults.table import REFUSED, SAME
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import Stop, config_of, same_weights, small


def tensors(value):
    return {"a": torch.full((3,), float(value)), "n": torch.tensor(value)}


def test_a_state_comes_back_as_it_was(tmp_path):
    info = {"history": [{"score": 0.1}], "scaler": None, "loss": 1 / 3}
    save_state(tmp_path, 5, tensors(7), info)
    stored, said = load_state(tmp_path)
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors(7).items()) and said == info
    assert load_state(tmp_path / "nothing") is None


def test_the_last_two_are_kept(tmp_path):
    for step in (2, 30, 100):
        save_state(tmp_path, step, tensors(step), {})
    assert sorted(p.name[:13] for p in (tmp_path / "resume").iterdir()) == ["step-00000030", "step-00000100"]
    assert load_state(tmp_path)[0]["n"] == 100


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # a value of a tensor: safetensors would not notice
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.fault("killed training", SAME)
@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_broken_state_is_named_and_the_one_before_used(tmp_path, damage, capsys):
    save_state(tmp_path, 1, tensors(1), {})
    last = save_state(tmp_path, 2, tensors(2), {})
    damage(last)
    assert load_state(tmp_path)[0]["n"] == 1
    assert f"{last} is broken: not what its name says" in capsys.readouterr().out
    assert not last.exists()
    damage(next((tmp_path / "resume").iterdir()))
    assert load_state(tmp_path) is None


@pytest.mark.fault("killed training", REFUSED)
def test_a_state_that_cannot_be_read_now_stays(tmp_path, monkeypatch):
    last = save_state(tmp_path, 1, tensors(1), {})
    monkeypatch.setattr("drywall_seg.runs.open", fail_to_read, raising=False)
    with pytest.raises(OSError, match="Transport endpoint"):
        load_state(tmp_path)
    assert last.is_file()


def fail_to_read(path, mode):
    raise OSError(107, "Transport endpoint is not connected", str(path))


@pytest.mark.fault("killed training", SAME)
def test_killed_between_two_renames_the_checkpoint_is_put_back(tmp_path):
    for name, text in ((".old-12-checkpoint", "the best"), (".partial-12-checkpoint", "half")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    with single_writer(tmp_path):
        assert (tmp_path / "checkpoint" / "file").read_text() == "the best"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint"]
    (tmp_path / ".old-13-checkpoint").mkdir()  # the new one is there: the old one goes
    with single_writer(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint"]


def test_what_was_half_written_is_cleared(tmp_path):
    save_state(tmp_path, 1, tensors(1), {})
    (tmp_path / "resume" / ".partial-99-state").write_bytes(b"half")
    assert load_state(tmp_path)[0]["n"] == 1
    assert len(list((tmp_path / "resume").iterdir())) == 1


def test_a_state_holds_what_is_trained_and_not_the_frozen_encoder(sample_manifest, tmp_path):
    base = tiny_clipseg_folder(tmp_path / "tiny")
    segmenter = load_segmenter(str(base), 64)
    config = config_of(model=str(base), ema_decay=0.9, stored_views=0)
    training = start_training(
        segmenter, config, training_data(segmenter, small(sample_manifest), config), start_accelerator()
    )
    save_training(training, tmp_path)
    names = {name for name in load_state(tmp_path)[0] if name.startswith("weights/")}
    assert names == {f"weights/{name}" for name, p in segmenter.named_parameters() if ".decoder." in name}


@pytest.mark.fault("killed training", SAME)
@pytest.mark.parametrize("settings", [{"ema_decay": 0.9}, {"mine_every": 1, "negative_share": 0.5}])
def test_stopped_within_an_epoch_it_ends_the_same_to_the_bit(sample_manifest, tmp_path, settings, monkeypatch):
    config, manifest = config_of(epochs=3, checkpoint_steps=1, batch_size=5, **settings), small(sample_manifest)
    whole = fit(new_compact(64), manifest, config, tmp_path / "whole")
    step, count = loop.optimiser_step, 0

    def stop_at_seven(*arguments):
        nonlocal count
        count += 1
        if count == 8:
            raise Stop
        return step(*arguments)

    monkeypatch.setattr(loop, "optimiser_step", stop_at_seven)
    with pytest.raises(Stop):
        fit(new_compact(64), manifest, config, tmp_path / "stopped")
    monkeypatch.setattr(loop, "optimiser_step", step)
    steps = len(json.loads(json.dumps(load_state(tmp_path / "stopped")[1]))["losses"])
    assert steps == 7 and steps % 5  # 24 rows by 5: in the middle of the second epoch
    resumed = fit(new_compact(64), manifest, config, tmp_path / "stopped")
    assert resumed.train_loss.tolist() == whole.train_loss.tolist()
    assert same_weights(tmp_path / "whole", tmp_path / "stopped")
    for name in ("steps.csv", "hard_negatives.csv"):
        files = [tmp_path / run / name for run in ("whole", "stopped")]
        assert len({path.read_text() if path.is_file() else None for path in files}) == 1


@pytest.mark.fault("two at once", REFUSED)
def test_a_run_has_one_writer(tmp_path):
    code = "import sys; from pathlib import Path; from drywall_seg.runs import single_writer\n"
    code += "with single_writer(Path(sys.argv[1])): print('mine')"
    other = [sys.executable, "-c", code, str(tmp_path / "run")]
    with single_writer(tmp_path / "run"):
        (tmp_path / "run" / ".partial-1-metrics.json").write_text("of this process")
        refused = subprocess.run(other, capture_output=True, text=True)
        assert refused.returncode and "another process is writing this run" in refused.stderr
        assert (tmp_path / "run" / ".partial-1-metrics.json").exists()  # the other one touched nothing
    assert subprocess.run(other, capture_output=True, text=True).stdout == "mine\n"
    assert not (tmp_path / "run" / ".partial-1-metrics.json").exists()
