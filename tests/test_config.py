import json

import pytest

from drywall_seg.config import (
    PRESETS,
    RunConfig,
    model_of,
    project_root,
    resolve_config,
    resolve_model,
    resolve_path,
    run_config,
    stored_settings,
)
from drywall_seg.presets import CLIPSEG


def test_defaults_are_the_sample_and_the_compact_model():
    config = resolve_config()
    assert (config.data_root, config.model, config.preset) == ("data/sample", "compact", "compact")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_names_its_model(preset):
    config = resolve_config(preset=preset)
    assert config.preset == preset
    assert config.model == PRESETS[preset]["model"]


@pytest.mark.parametrize(
    ("given", "preset", "model"),
    [
        ({"model": "compact"}, "compact", "compact"),
        ({"model": CLIPSEG}, "clipseg_decoder", CLIPSEG),
        ({"model": "my/folder"}, "clipseg_decoder", "my/folder"),
        ({"model": "my/folder", "preset": "clipseg_all"}, "clipseg_all", "my/folder"),
        ({"preset": "clipseg_zeroshot", "model": None}, "clipseg_zeroshot", CLIPSEG),
    ],
)
def test_the_preset_fills_what_is_none(given, preset, model):
    config = resolve_config(**given)
    assert (config.preset, config.model) == (preset, model)


def test_a_preset_can_bring_settings_that_have_no_field():
    config = resolve_config(preset={"preset": "clipseg_all", "focal_gamma": 2.0, "epochs": 3}, epochs=5, seed=None)
    assert (config.preset, config.focal_gamma, config.epochs, config.learning_rate) == ("clipseg_all", 2.0, 5, 2e-5)
    assert resolve_config(preset={"mine_every": 2}).preset == "compact"
    with pytest.raises(ValueError, match="unknown setting 'focal'; did you mean 'focal_gamma'"):
        resolve_config(preset={"focal": 2.0})


def test_a_given_value_wins_over_the_preset():
    assert resolve_config(preset="clipseg_all").learning_rate == 2e-5
    config = resolve_config(preset="clipseg_all", learning_rate=1e-3, epochs=0)
    assert (config.learning_rate, config.epochs) == (1e-3, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lernig_rate": 1}, "lernig_rate.*learning_rate"),
        ({"learning_rate": 10**400}, "learning_rate is 10{400}, not a number above 0"),
        ({"weight_decay": float("inf")}, "weight_decay is inf, not a number from 0 up"),
        ({"preset": "clipseg_zeroshoot"}, "clipseg_zeroshoot.*clipseg_zeroshot"),
        ({"split": "random"}, "split is 'random'"),
        ({"trainable": "head"}, "trainable is 'head'"),
        ({"trainable": "decoder+0"}, "trainable is 'decoder.0'"),
        ({"train_size": 100}, "train_size is 100, not a multiple of 16"),
        ({"image_size": 350}, "image_size is 350"),
        ({"epochs": -1}, "epochs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"negative_share": 1}, "negative_share is 1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"run_name": 5}, "run_name is 5"),
        ({"seed": True}, "seed is True"),
        ({"epochs": "eight"}, "epochs is 'eight'"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
    ],
)
def test_what_cannot_be_right_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        resolve_config(**given)


def test_config_is_plain_json():
    config = resolve_config()
    assert RunConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_paths_start_at_the_project_whoever_asks(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    assert project_root() == project
    assert resolve_path("outputs") == project / "outputs"
    assert resolve_path("/elsewhere").as_posix() == "/elsewhere"
    assert resolve_path("../shared") == project.parent / "shared"


def test_a_trained_run_brings_its_settings(project):
    folder = project / "outputs" / "mine"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(resolve_config(split="image", run_name="mine").to_dict()))
    assert run_config(run_name="mine").split == "photo"  # not trained yet: nothing to match
    (folder / "checkpoint" / "segmenter.json").write_text("{}")
    config = run_config(run_name="mine", threshold=0.3)
    assert (config.split, config.threshold) == ("image", 0.3)
    assert model_of(config) == str(folder / "checkpoint")
    with pytest.raises(ValueError, match="split 'image', not 'photo'"):
        run_config(run_name="mine", split="photo")
    assert model_of(resolve_config(run_name="other")) == "compact"


def test_a_model_folder_is_found_from_anywhere_and_brings_its_preset(project, monkeypatch):
    folder = project / "outputs" / "mine" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "segmenter.json").write_text('{"architecture": "compact"}')
    monkeypatch.chdir(project / "notebooks")
    assert resolve_model("outputs/mine/checkpoint") == str(folder)
    assert resolve_model("compact") == "compact"
    assert resolve_model(CLIPSEG) == CLIPSEG
    assert resolve_config(model="outputs/mine/checkpoint").preset == "compact"


def test_settings_of_an_older_version_are_left_out(project):
    folder = project / "outputs" / "old"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "segmenter.json").write_text('{"architecture": "compact"}')
    (folder / "config.json").write_text(json.dumps({"run_name": "old", "epochs": 3, "balance_labels": True}))
    assert stored_settings(folder) == {"run_name": "old", "epochs": 3}
    assert run_config(run_name="old").epochs == 3
