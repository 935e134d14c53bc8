"""The settings of a run: their names, defaults, and what they may be."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from drywall_seg.prompts import LABELS
from drywall_seg.runs import is_path

SPLITS = ("photo", "image", "publisher")
TRAINABLE = r"decoder(\+[1-9]\d*)?|all"
FILLED_IN = ("stored_views",)
"""Settings that, where they are None, a run fills in with what pays on its machine."""
THRESHOLD_RULES = ("max mean Dice", "recall at a false-alarm budget")

_TEXT = (str, is_path, "a text that can be a path")
_SIDE = (int, lambda v: v >= 64 and v % 16 == 0, "a multiple of 16 from 64 up")
_FROM_0 = (int, lambda v: v >= 0, "a whole number from 0 up")
_COUNT = (int, lambda v: v >= 1, "a whole number from 1 up")
_SWITCH = (bool, lambda _: True, "True or False")
_SHARE = (float, lambda v: 0 <= v <= 1, "from 0 to 1")
_UNDER_1 = (float, lambda v: 0 <= v < 1, "from 0 to under 1")


def _one_of(*values: str) -> tuple[type, Callable[[Any], bool], str]:
    return str, values.__contains__, f"one of {', '.join(values)}"


CHECKS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    **dict.fromkeys(("data_root", "outputs_root", "run_name", "model", "preset"), _TEXT),
    **dict.fromkeys(("image_size", "train_size"), _SIDE),
    **dict.fromkeys(("seed", "epochs", "joint_line_repeats", "stored_views"), _FROM_0),
    **dict.fromkeys(("mine_every", "patience", "test_images"), _FROM_0),
    **dict.fromkeys(("batch_size", "micro_batch", "checkpoint_steps"), _COUNT),
    **dict.fromkeys(("paraphrases", "freeze_norms", "drop_shared", "score_known"), _SWITCH),
    **dict.fromkeys(("threshold", "false_alarm_budget", "tversky_alpha", "degrade_share"), _SHARE),
    **dict.fromkeys(("negative_share", "ema_decay", "color_strength"), _UNDER_1),
    "split": _one_of(*SPLITS),
    "threshold_rule": _one_of(*THRESHOLD_RULES),
    "start": _one_of("model", "imagenet"),
    "balance": _one_of("none", "label", "photograph"),
    "only_label": _one_of(*LABELS),
    "learning_rate": (float, lambda v: v > 0, "a number above 0"),
    "trainable": (str, lambda v: re.fullmatch(TRAINABLE, v), "decoder, decoder+K (K blocks of the encoder) or all"),
    "crop_min": (float, lambda v: 0 < v <= 1, "above 0 to 1"),
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
    balance: str = "none"
    """Draw each `label`, or each `photograph` whatever the number of its copies, as often."""
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
    mine_every: int = 0
    """Epochs from one search for hard negatives to the next; 0 for none."""
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    micro_batch: int | None = None
    """Images that the device works on at once; None for all of a batch. Halved where its memory runs out."""
    freeze_norms: bool = False
    """Keep BatchNorm as it is: only then do micro-batches add up to the batch where a model has one."""
    stored_views: int | None = None
    """Augmented views of an image whose activations are stored where the encoder is frozen; None for what pays here."""
    patience: int = 0
    """Epochs without a better one on val after which training ends; 0 for never."""
    checkpoint_steps: int = 200
    """Steps from one stored state to the next, from which a training goes on; there is one after each epoch too."""
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
                value = float(value) if abs(value) < 2**53 else math.inf
            if value is None and field.default is None:
                continue
            if type(value) is not kind or value == math.inf or not allowed(value):
                raise ValueError(f"{field.name} is {getattr(self, field.name)!r}, not {words}")

        if self.mine_every and not self.negative_share:
            raise ValueError(f"mine_every is {self.mine_every}, but negative_share is 0: no negative would be drawn")

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary."""
        return asdict(self)


NAMES = [field.name for field in fields(RunConfig)]
