"""Settings: what a notebook's parameters, a preset and the defaults come to."""

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from drywall_seg.presets import PRESETS
from drywall_seg.prompts import LABELS
from drywall_seg.runs import CHECKPOINT, read_json, run_folder

SPLITS = ("photo", "image", "publisher")
TRAINABLE = r"decoder(\+[1-9]\d*)?|all"
STARTS = ("model", "imagenet")
THRESHOLD_RULES = ("max mean Dice", "recall at a false-alarm budget")

_TEXT = (str, bool, "a text")
_SIDE = (int, lambda v: v >= 64 and v % 16 == 0, "a multiple of 16 from 64 up")
_SWITCH = (bool, lambda _: True, "True or False")

CHECKS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "data_root": _TEXT,
    "outputs_root": _TEXT,
    "run_name": _TEXT,
    "model": _TEXT,
    "preset": _TEXT,
    "split": (str, SPLITS.__contains__, f"one of {', '.join(SPLITS)}"),
    "seed": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "image_size": _SIDE,
    "train_size": _SIDE,
    "epochs": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "batch_size": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "learning_rate": (float, lambda v: v > 0, "a number above 0"),
    "trainable": (str, lambda v: re.fullmatch(TRAINABLE, v), "decoder, decoder+K (K blocks of the encoder) or all"),
    "negative_share": (float, lambda v: 0 <= v < 1, "from 0 to under 1"),
    "threshold": (float, lambda v: 0 <= v <= 1, "from 0 to 1"),
    "threshold_rule": (str, THRESHOLD_RULES.__contains__, f"one of {', '.join(THRESHOLD_RULES)}"),
    "false_alarm_budget": (float, lambda v: 0 <= v <= 1, "from 0 to 1"),
    "start": (str, STARTS.__contains__, f"one of {', '.join(STARTS)}"),
    "paraphrases": _SWITCH,
    "ema_decay": (float, lambda v: 0 <= v < 1, "from 0 to under 1"),
    "joint_line_repeats": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "balance_labels": _SWITCH,
    "only_label": (str, LABELS.__contains__, f"one of {', '.join(LABELS)}"),
    "drop_shared": _SWITCH,
    "score_known": _SWITCH,
    "test_images": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "tversky_alpha": (float, lambda v: 0 <= v <= 1, "from 0 to 1"),
    "crop_min": (float, lambda v: 0 < v <= 1, "above 0 to 1"),
    "degrade_share": (float, lambda v: 0 <= v <= 1, "from 0 to 1"),
    "color_strength": (float, lambda v: 0 <= v < 1, "from 0 to under 1"),
}
"""Type, test and wording for what a setting may be; one that is not listed is a number from 0 up."""


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

    threshold_rule: str = THRESHOLD_RULES[0]
    """How thresholds are chosen on val."""
    false_alarm_budget: float = 0.005
    """For the second rule: largest mean share of the pixels without target that may be masked."""

    # The recipe: only presets set these.
    train_size: int | None = None
    """Side of the training samples, crops of the photo; None for image_size."""
    start: str = "model"
    """What training begins with: the model's weights, or for `compact` ones of `imagenet` in its encoder."""
    encoder_rate_share: float = 1.0
    """The encoder's learning rate as a share of the rest's."""
    ema_decay: float = 0.0
    """Of the moving average of the weights that is scored and kept, a step; 0 for none."""
    joint_line_repeats: int = 1
    """How often an epoch draws each joint line, of which there are few; 0 leaves them out."""
    balance_labels: bool = False
    """Draw as many samples of each label."""
    only_label: str | None = None
    """Train and score this label alone; None for all."""
    drop_shared: bool = False
    """Leave the photographs that val or test hold too out of train."""
    score_known: bool = False
    """Score photographs that the model was trained on too, as the reference report did: memory, not skill."""
    test_images: int = 0
    """Score a seeded sample of this many test images, as many of each of the task's labels; 0 for all."""
    paraphrases: bool = False
    """Ask in generated sentences too, not only in the listed ones."""
    bce_weight: float = 0.7
    dice_weight: float = 0.3
    positive_weight: float = 1.0
    """Of target pixels in BCE, against 1 for the others."""
    focal_gamma: float = 0.0
    """How much pixels that are told right count less in BCE."""
    boundary_weight: float = 0.0
    """What pixels near a target's outline count more in BCE: 1 + this."""
    tversky_alpha: float = 0.5
    """What false alarms count in Dice; misses count 1 - this."""
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    crop_min: float = 0.5
    """Smallest crop as a share of the longer side; 1 for none."""
    degrade_share: float = 0.0
    """Of the samples that are blurred, coarsened or made noisy."""
    color_strength: float = 0.3
    """Largest relative change of brightness and contrast; 0 for none."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, allowed, words = CHECKS.get(field.name, (float, lambda v: v >= 0, "a number from 0 up"))
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if value is None and field.default is None:
                continue
            if type(value) is not kind or not allowed(value):
                raise ValueError(f"{field.name} is {getattr(self, field.name)!r}, not {words}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary."""
        return asdict(self)


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
    preset = given.get("preset") or ("compact" if _is_compact(given.get("model", "compact")) else "clipseg_decoder")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{close_match(preset, list(PRESETS))}")
    return replace(RunConfig(), **{**PRESETS[preset], **given, "preset": preset})


def _is_compact(model: Any) -> bool:
    settings = resolve_path(str(model)) / "segmenter.json"
    return model == "compact" or (settings.is_file() and read_json(settings).get("architecture") == "compact")


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
        if name in given and given[name] != stored.get(name):
            raise ValueError(f"{folder}: the run was trained with {name} {stored.get(name)!r}, not {given[name]!r}")
    return resolve_config(**{**stored, **given})


def close_match(name: str, known: list[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest known name, else a list of all of them."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def project_root() -> Path:
    """Returns the project's folder: the nearest one upward of the working directory that holds the notebooks.

    Else the one that this library lies in; else, for a library installed without its project, the working directory.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "notebooks" / "00_run_all.ipynb").is_file():
            return folder
    return here


def resolve_path(path: str | os.PathLike) -> Path:
    """Makes a path absolute, relative ones against the project's root, whoever starts the notebook."""
    return Path(os.path.abspath(project_root() / Path(path).expanduser()))


def run_folder_of(config: RunConfig) -> Path:
    """Returns the absolute folder of a configuration's run, without making it."""
    return run_folder(resolve_path(config.outputs_root), config.run_name)


def has_checkpoint(config: RunConfig) -> bool:
    """Says whether the run has been trained."""
    return (run_folder_of(config) / CHECKPOINT / "segmenter.json").is_file()


def model_of(config: RunConfig) -> str:
    """Returns what to load: the run's checkpoint if it has one, else the configured model."""
    return str(run_folder_of(config) / CHECKPOINT) if has_checkpoint(config) else resolve_model(config.model)


def resolve_model(model: str) -> str:
    """Makes the path of a model's folder absolute; a name is left as it is."""
    folder = resolve_path(model)
    return str(folder) if folder.is_dir() and model != "compact" else model
