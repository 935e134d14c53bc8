import json

import numpy as np
import pytest
import torch

from drywall_seg.config import resolve_config
from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.data.manifest import prepare
from drywall_seg.data.splits import photo_hash
from drywall_seg.inference.postprocess import PostProcessing
from drywall_seg.inference.predict import Predictor
from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.settings import RunConfig
from drywall_seg.training.fit import fit
from drywall_seg.training.losses import segmentation_losses
from drywall_seg.training.optimisation import learning_rate_factor, parameter_groups, update_average
from drywall_seg.training.run import train_run
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import TIMES, TINY, Stop, small, weights


def test_the_same_seed_gives_the_same_weights_to_the_bit(sample_manifest, tmp_path):
    config = resolve_config(epochs=2, **TINY)
    runs = {}
    for name, seed in (("first", 42), ("second", 42), ("other", 7)):
        chosen = resolve_config(**{**config.to_dict(), "seed": seed})
        fit(new_compact(64, seed), small(sample_manifest), chosen, tmp_path / name)
        runs[name] = weights(tmp_path / name)
    for name, tensor in runs["first"].items():
        assert torch.equal(tensor, runs["second"][name]), name
    assert any(not torch.equal(t, runs["other"][n]) for n, t in runs["first"].items())


@pytest.mark.parametrize("model", ["compact", "clipseg"])
def test_the_loss_falls_on_a_tiny_set(sample_manifest, model, tmp_path):
    segmenter = new_compact(64) if model == "compact" else load_segmenter(tiny_clipseg_folder(tmp_path / "tiny"), 64)
    parameters = segmenter.trainable_parameters("all")
    data = PromptedDataset(sample_manifest, "train", 64, segmenter.mean, segmenter.std)
    batch = torch.utils.data.default_collate([data[i] for i in range(0, len(data), len(data) // 6)])
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    segmenter.train()
    losses = []
    for _ in range(40):
        logits = segmenter(batch["pixel_values"], segmenter.encode_prompts(batch["prompt"]))
        loss = segmentation_losses(logits, batch["target"], batch["valid"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_decoder_training_leaves_the_encoder_alone(sample_manifest, tmp_path):
    base = tiny_clipseg_folder(tmp_path / "tiny")
    segmenter = load_segmenter(str(base), 64)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    config = resolve_config(model=str(base), image_size=64, epochs=1, learning_rate=1e-2)
    fit(segmenter, small(sample_manifest), config, tmp_path / "run")
    changed = {name for name, tensor in segmenter.state_dict().items() if not torch.equal(tensor.cpu(), before[name])}
    assert changed
    assert all(".decoder." in name for name in changed)
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").stat().st_size < 0.5 * sum(
        tensor.nbytes for tensor in before.values()
    )


def test_a_run_writes_its_folder_and_is_not_trained_twice(project, monkeypatch):
    config = resolve_config(run_name="mine", epochs=2, **TINY)
    manifest = small(prepare(config))
    epochs = []
    history = train_run(config, manifest, lambda row, _: epochs.append(row))
    folder = project / "outputs" / "mine"
    assert [row["epoch"] for row in epochs] == [1, 2] == history.epoch.tolist()
    assert history.best[0]
    assert not (folder / "resume").exists()
    assert {"train_loss", "val_overall_mean_iou", "val_crack_mean_dice", "score", "seconds"} <= set(history.columns)
    assert json.loads((folder / "config.json").read_text()) == {**config.to_dict(), "stored_views": 0}
    assert json.loads((folder / "environment.json").read_text())["data_fingerprint"] == manifest.info["fingerprint"]
    stored = json.loads((folder / "checkpoint" / "thresholds.json").read_text())
    assert list(stored) == ["thresholds", "chosen", "presence_cut", "postprocessing", "reference"]
    thresholds = stored["thresholds"]
    assert set(thresholds) == {"crack", "taping_area", "joint_line"} == set(stored["postprocessing"])
    assert Predictor.load(folder / "checkpoint").thresholds == thresholds

    monkeypatch.setattr("drywall_seg.training.run.fit", lambda *_: pytest.fail("trained again"))
    assert train_run(config, manifest).equals(history)
    changed = resolve_config(**{**config.to_dict(), "learning_rate": 1e-4})
    with pytest.raises(ValueError, match=r"learning_rate 0\.002, now 0\.0001.*mine-2 is free"):
        train_run(changed, manifest)
    other_data = type(manifest)(manifest.table, manifest.data_root, manifest.folder, {"fingerprint": "other"})
    with pytest.raises(ValueError, match="the data, which have changed"):
        train_run(config, other_data)


@pytest.mark.parametrize("epochs", [0, 1])
def test_killed_after_its_last_epoch_a_run_chooses_what_is_left_and_trains_no_more(project, monkeypatch, epochs):
    config = resolve_config(run_name="mine", epochs=epochs, **TINY)
    manifest = small(prepare(config))
    file = project / "outputs" / "mine" / "checkpoint" / "thresholds.json"
    seen = []

    def choose(predictor, *_):
        seen.append((predictor.thresholds, predictor.presence_cut, predictor.postprocessing["crack"]))
        if len(seen) == 1:
            raise Stop
        return {"presence_cut": predictor.presence_cut, "postprocessing": {"crack": {"min_area": 0.01}}}

    monkeypatch.setattr("drywall_seg.training.fit.choose_delivery", choose)
    with pytest.raises(Stop):
        train_run(config, manifest)
    assert set(json.loads(file.read_text())) == {"thresholds", "chosen"}
    history = train_run(config, manifest, lambda *_: pytest.fail("trained again"))
    assert len(history) == epochs and len(seen) == 2 and seen[0] == seen[1]
    assert seen[1][2] == PostProcessing()
    trained = Predictor.load(file.parent)
    assert trained.postprocessing["crack"] == PostProcessing(min_area=0.01)
    assert trained.presence_cut == seen[1][1] and trained.thresholds == seen[1][0]
    assert train_run(config, manifest).equals(history) and len(seen) == 2


def test_a_failed_start_does_not_take_the_name(project):
    manifest = small(prepare(resolve_config()), 4)
    with pytest.raises(ValueError, match="no such folder"):
        train_run(resolve_config(model="no/such/model", run_name="mine"), manifest)
    (project / "outputs" / "mine").mkdir(parents=True, exist_ok=True)
    (project / "outputs" / "mine" / "config.json").write_text("{}")  # what 03_evaluate writes for a baseline
    train_run(resolve_config(run_name="mine", epochs=0, image_size=64), manifest)


def test_a_checkpoint_names_its_photographs(sample_manifest, tmp_path):
    base, config = new_compact(64), resolve_config(epochs=1, **TINY)
    base.trained_on = frozenset({"of the base"})
    fit(base, small(sample_manifest, 8), config, tmp_path)
    trained = small(sample_manifest, 8).rows("train").photo_id
    assert load_segmenter(tmp_path / "checkpoint").trained_on == {"of the base", *map(photo_hash, trained)}
    assert 0 <= Predictor.load(tmp_path / "checkpoint").presence_cut <= 1


def test_no_epochs_make_the_loaded_model_the_checkpoint(sample_manifest, tmp_path):
    segmenter = new_compact(64)
    config = resolve_config(epochs=0, **TINY)
    history = fit(segmenter, small(sample_manifest), config, tmp_path)
    assert len(history) == 0
    for name, tensor in new_compact(64).state_dict().items():
        assert torch.equal(tensor, weights(tmp_path)[name]), name
    assert Predictor.load(tmp_path / "checkpoint").thresholds


def test_the_checkpoint_is_the_best_epoch_not_the_last(sample_manifest, tmp_path, monkeypatch):
    scores = iter([0.1, 0.9, 0.2])

    def validate(predictor, manifest, config, **_):
        value = next(scores)
        return {"crack": value}, {"overall": {"mean_iou": value, "mean_dice": value}, "labels": {}}

    monkeypatch.setattr("drywall_seg.training.fit.score_validation", validate)
    history = fit(new_compact(64), small(sample_manifest, 4), resolve_config(epochs=3, **TINY), tmp_path)
    assert history.best.tolist() == [True, True, False]
    assert Predictor.load(tmp_path / "checkpoint").thresholds["crack"] == 0.9


def test_a_given_threshold_is_stored_for_all(sample_manifest, tmp_path, monkeypatch):
    chosen_at = []

    def choose(predictor, *_):
        chosen_at.append(predictor.thresholds)
        return {"presence_cut": 0.5}

    monkeypatch.setattr("drywall_seg.training.fit.choose_delivery", choose)
    fit(new_compact(64), small(sample_manifest), resolve_config(epochs=0, threshold=0.4, **TINY), tmp_path)
    assert set(Predictor.load(tmp_path / "checkpoint").thresholds.values()) == {0.4} == set(chosen_at[0].values())


def test_a_loss_that_is_not_finite_stops(sample_manifest, tmp_path):
    segmenter = new_compact(64)
    with torch.no_grad():
        segmenter.decoder.score.bias.fill_(np.nan)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        fit(segmenter, small(sample_manifest, 4), resolve_config(epochs=1, **TINY), tmp_path)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 0.1) for step in (0, 4, 9, 10, 55, 100)]
    assert factors == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0])


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_stopped_training_goes_on_and_ends_the_same_to_the_bit(sample_manifest, tmp_path, ema_decay):
    settings = {**resolve_config(epochs=3, **TINY).to_dict(), "ema_decay": ema_decay, "encoder_rate_share": 0.5}
    config = RunConfig(**settings)
    manifest = small(sample_manifest)
    undisturbed = fit(new_compact(64), manifest, config, tmp_path / "whole")

    def stop_at_two(row, _):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(new_compact(64), manifest, config, tmp_path / "stopped", stop_at_two)
    epochs = []
    resumed = fit(new_compact(64), manifest, config, tmp_path / "stopped", lambda row, _: epochs.append(row))
    assert [row["epoch"] for row in epochs] == [3]
    assert resumed.drop(columns=TIMES).equals(undisturbed.drop(columns=TIMES))
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "stopped")[name]), name
    assert not (tmp_path / "stopped" / "resume").exists()


def test_the_average_follows_slowly_and_begins_at_once():
    def after(value, n_steps):
        average = {"weight": torch.tensor(0.0), "counter": torch.tensor(3)}
        update_average(average, {"weight": torch.tensor(value), "counter": torch.tensor(7)}, 0.99, n_steps)
        assert average["counter"] == 7  # BatchNorm's
        return average["weight"].item()

    assert after(1.0, 0) == 1
    assert after(1.0, 1) == pytest.approx(9 / 11)
    assert after(1.0, 10_000) == pytest.approx(0.01)


def test_the_encoder_has_its_own_learning_rate():
    config = RunConfig(**{**resolve_config(**TINY).to_dict(), "encoder_rate_share": 0.25, "trainable": "all"})
    groups = parameter_groups(new_compact(64), config)
    assert [group["lr"] for group in groups] == [0.25 * config.learning_rate, config.learning_rate]
    assert sum(len(group["params"]) for group in groups) == len(list(new_compact(64).parameters()))
