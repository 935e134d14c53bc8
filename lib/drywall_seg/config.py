"""Settings: what a notebook's parameters, a preset and the defaults come to."""

import os
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from drywall_seg.runs import CHECKPOINT, read_json, run_folder

CLIPSEG = "CIDAS/clipseg-rd64-refined"
SPLITS = ("photo", "image", "publisher")
TRAINABLE = ("decoder", "all")


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run; the first block has the names of the notebooks' parameters."""

    data_root: str = "data/sample"
    outputs_root: str = "outputs"
    run_name: str = "demo"
    model: str = "compact"
    preset: str = "compact"
    split: str = "photo"
    seed: int = 42
    image_size: int = 352
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    trainable: str = "all"
    negative_share: float = 0.15
    threshold: float | None = None
    """None: chosen on val for each label. Else from 0 to 1, for all labels."""

    # The recipe: only presets set these.
    bce_weight: float = 0.7
    dice_weight: float = 0.3
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    crop_min: float = 0.5
    """Smallest crop as a share of the longer side; 1 for none."""
    color_strength: float = 0.3
    """Largest relative change of brightness and contrast; 0 for none."""

    def __post_init__(self) -> None:
        problems = [
            (self.split not in SPLITS, f"split is {self.split!r}, not one of {', '.join(SPLITS)}"),
            (self.trainable not in TRAINABLE, f"trainable is {self.trainable!r}, not decoder or all"),
            (
                self.image_size < 64 or self.image_size % 32,
                f"image_size is {self.image_size}, not 64, 96, 128 ..",
            ),
            (self.epochs < 0, f"epochs is {self.epochs}, below 0"),
            (self.batch_size < 1, f"batch_size is {self.batch_size}, below 1"),
            (not self.learning_rate > 0, f"learning_rate is {self.learning_rate}, not above 0"),
            (self.weight_decay < 0, f"weight_decay is {self.weight_decay}, below 0"),
            (not 0 <= self.negative_share < 1, f"negative_share is {self.negative_share}, not in [0, 1)"),
            (
                self.threshold is not None and not 0 <= self.threshold <= 1,
                f"threshold {self.threshold} not in [0, 1]",
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    # For CPU and for data of any size: small, trained whole, from random weights.
    "compact": dict(model="compact", image_size=320, epochs=12, batch_size=16, learning_rate=2e-3, trainable="all"),
    # What most public attempts found best: the 1.1 M parameter decoder alone.
    "clipseg_decoder": dict(
        model=CLIPSEG, image_size=352, epochs=8, batch_size=16, learning_rate=5e-4, trainable="decoder"
    ),
    # All weights, as the reference report trained them.
    "clipseg_all": dict(model=CLIPSEG, image_size=352, epochs=8, batch_size=16, learning_rate=2e-5, trainable="all"),
    # The released weights as they are; only the thresholds are chosen, on val.
    "clipseg_zeroshot": dict(model=CLIPSEG, image_size=352, epochs=0, trainable="decoder"),
}


def resolve_config(**parameters: Any) -> RunConfig:
    """Merges parameters over their preset over the defaults.

    A parameter that is None is taken from the preset. Without a preset, `compact` gets the preset of that name
    and any other model `clipseg_decoder`.

    >>> resolve_config(preset="clipseg_zeroshot").epochs
    0

    Raises:
        ValueError: If a name is unknown (the close match is named) or a value out of range.
    """
    known = [field.name for field in fields(RunConfig)]
    for name in parameters:
        if name not in known:
            raise ValueError(f"unknown setting {name!r}{close_match(name, known)}")
    given = {name: value for name, value in parameters.items() if value is not None}
    preset = given.get("preset") or ("compact" if given.get("model", "compact") == "compact" else "clipseg_decoder")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{close_match(preset, list(PRESETS))}")
    return replace(RunConfig(), **{**PRESETS[preset], **given, "preset": preset})


def run_config(**parameters: Any) -> RunConfig:
    """Merges parameters over the settings that the run was trained with; without such a run, as `resolve_config`.

    Raises:
        ValueError: If a given model, preset, split or seed is not the run's: another split of the same data would
            score photographs that it was trained on.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    folder = run_folder_of(resolve_config(**given))
    if not (folder / CHECKPOINT / "segmenter.json").is_file():
        return resolve_config(**given)
    stored = read_json(folder / "config.json")
    for name in ("model", "preset", "split", "seed"):
        if given.get(name, stored[name]) != stored[name]:
            raise ValueError(f"{folder}: the run was trained with {name} {stored[name]!r}, not {given[name]!r}")
    return resolve_config(**{**stored, **given})


def close_match(name: str, known: list[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest known name, else a list of all of them."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def project_root() -> Path:
    """Returns the project's folder: the nearest one upward of the working directory that holds `notebooks`.

    The working directory itself where there is none, as for a library installed without its project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "00_run_all.ipynb").is_file():
            return folder
    return here


def resolve_path(path: str | os.PathLike) -> Path:
    """Makes a path absolute, relative ones against the project's root, whoever starts the notebook."""
    return Path(os.path.abspath(project_root() / Path(path).expanduser()))


def run_folder_of(config: RunConfig) -> Path:
    """Returns the absolute folder of a configuration's run, without making it."""
    return run_folder(resolve_path(config.outputs_root), config.run_name)


def model_of(config: RunConfig) -> str:
    """Returns what to load: the run's checkpoint if it has one, else the configured model."""
    checkpoint = run_folder_of(config) / CHECKPOINT
    return str(checkpoint) if (checkpoint / "segmenter.json").is_file() else config.model
