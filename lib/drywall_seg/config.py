"""From a notebook's parameters, a preset and the defaults to a run's settings, its folder and its model."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from drywall_seg.presets import PRESETS
from drywall_seg.project import project_root
from drywall_seg.runs import CHECKPOINT, read_object, run_folder
from drywall_seg.settings import FILLED_IN, NAMES, RunConfig


def resolve_config(**parameters: Any) -> RunConfig:
    """Merges parameters over their preset over the defaults.

    A parameter that is None is taken from the preset: a name, or settings by name, its own preset's among them.
    Without a preset, `compact` gets the preset of that name and any other model `clipseg_decoder`.

    >>> resolve_config(preset="clipseg_zeroshot").epochs
    0
    >>> resolve_config(preset={"preset": "compact", "focal_gamma": 2.0}).focal_gamma
    2.0

    Raises:
        ValueError: If a name is unknown (the close match is named) or a value out of range.
    """
    given = _given(parameters)
    preset = given.get("preset") or ("compact" if _is_compact(given.get("model", "compact")) else "clipseg_decoder")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{close_match(preset, list(PRESETS))}")
    return RunConfig(**{**PRESETS[preset], **given, "preset": preset})


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters that are not None, and those that the preset brings."""
    if isinstance(own := parameters.get("preset"), dict):
        parameters = {**own, **{name: value for name, value in parameters.items() if name != "preset"}}
    for name in parameters:
        if name not in NAMES:
            raise ValueError(f"unknown setting {name!r}{close_match(name, NAMES)}")
    return {name: value for name, value in parameters.items() if value is not None}


def _is_compact(model: Any) -> bool:
    settings = resolve_path(str(model)) / "segmenter.json"
    return model == "compact" or (settings.is_file() and read_object(settings).get("architecture") == "compact")


def run_config(**parameters: Any) -> RunConfig:
    """Merges parameters over the settings that the run was trained with; without such a run, as `resolve_config`.

    Raises:
        ValueError: If a given model, preset, split or seed is not the run's: another split of the same data would
            score photographs that it was trained on.
    """
    given = _given(parameters)
    config = resolve_config(**given)
    if not has_checkpoint(config):
        return config
    folder = run_folder_of(config)
    stored = stored_settings(folder)
    for name in ("model", "preset", "split", "seed"):
        if name in given and given[name] != stored.get(name):
            raise ValueError(f"{folder}: the run was trained with {name} {stored.get(name)!r}, not {given[name]!r}")
    return resolve_config(**{**stored, **given})


def stored_settings(folder: Path) -> dict[str, Any]:
    """Returns a run's settings, without those that only an older version of this library had."""
    return {name: value for name, value in read_object(folder / "config.json").items() if name in NAMES}


def config_of_run(run_name: str, outputs_root: str) -> RunConfig:
    """Returns the settings that a run has stored, wherever its folder has been moved to.

    Raises:
        FileNotFoundError: If there is no such run.
    """
    folder = run_folder(resolve_path(outputs_root), run_name)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no run is there")
    return resolve_config(**{**stored_settings(folder), "outputs_root": outputs_root, "run_name": run_name})


def differing_settings(stored: dict[str, Any], config: RunConfig) -> list[str]:
    """Says which settings differ from a run's stored ones, as "name 1, now 2"; one it filled in itself does not."""
    wanted = {n: v for n, v in config.to_dict().items() if n not in FILLED_IN or v is not None}
    return [f"{n} {stored.get(n)!r}, now {v!r}" for n, v in wanted.items() if stored.get(n) != v]


def close_match(name: str, known: list[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest known name, else a list of all of them."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def resolve_path(path: str | os.PathLike) -> Path:
    """Makes a path absolute, relative ones against the project's root, whoever starts the notebook."""
    return Path(os.path.abspath(project_root() / Path(path).expanduser()))


def run_folder_of(config: RunConfig) -> Path:
    """Returns the absolute folder of a configuration's run, without making it."""
    return run_folder(resolve_path(config.outputs_root), config.run_name)


def has_checkpoint(config: RunConfig) -> bool:
    """Says whether the run has been trained."""
    return checkpoint_of(config) is not None


def checkpoint_of(config: RunConfig) -> Path | None:
    """Returns the folder of the run's checkpoint; None where it has not been trained."""
    folder = run_folder_of(config) / CHECKPOINT
    return folder if (folder / "segmenter.json").is_file() else None


def model_of(config: RunConfig) -> str:
    """Returns what to load: the run's checkpoint if it has one, else the configured model."""
    return str(checkpoint_of(config) or resolve_model(config.model))


def resolve_model(model: str) -> str:
    """Makes the path of a model's folder absolute; a name is left as it is."""
    folder = resolve_path(model)
    return str(folder) if folder.is_dir() and model != "compact" else model
