"""Training samples: a photo, a sentence, and the pixels that it means."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from drywall_seg.data.augment import augment_color, degrade, draw_geometry
from drywall_seg.data.manifest import Manifest
from drywall_seg.images import Letterbox, normalise, read_image, read_mask
from drywall_seg.paraphrases import draw_absent, draw_sentence
from drywall_seg.prompts import ABSENT_LABELS, ABSENT_THINGS, PROMPTS

HARD_SHARE = 0.5
"""Of the negatives, those drawn from `PromptedDataset.hard` where it lists some."""


@dataclass(eq=False, repr=False)
class PromptedDataset(Dataset):
    """(image, label) rows as letterboxed samples; what is drawn at random depends on (seed, epoch, index) alone.

    Set `epoch` before each pass. Each sample is a dictionary:
        pixel_values: float32 (3, S, S), normalised.
        target: float32 (S, S) in [0, 1], the share of the pixel that is target; all 0 for a negative prompt.
        valid: bool (S, S), false in the padding.
        prompt: the sentence.
    With `stored_views` there are as many augmented views of an image, the same in every run of that seed, of which
    each epoch shows the next; and instead of pixel_values, which `pixels` makes, it holds image_id and view.
    """

    manifest: Manifest
    split: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 42
    negative_share: float = 0.0
    crop_min: float = 1.0
    color_strength: float = 0.0
    degrade_share: float = 0.0
    joint_line_repeats: int = 1
    paraphrases: bool = False
    balance: str = "none"
    stored_views: int = 0
    epoch: int = 0
    hard: list[tuple[int, str]] = field(default_factory=list)
    """Index of a row and a sentence that it should not answer, but did: asked more often."""

    def __post_init__(self) -> None:
        rows = list(self.manifest.rows(self.split).itertuples(index=False))
        self.records = [r for r in rows for _ in range(self.joint_line_repeats if r.label == "joint_line" else 1)]
        self.by_image = {record.image_id: record for record in self.records}
        self.labels_of = self.manifest.table.groupby("image_id").label.agg(set).to_dict()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        record = self.records[index]
        labels = self.labels_of[record.image_id]
        prompt, present = draw_prompt(record.label, labels, self.negative_share, rng, self.paraphrases)
        if not present and self.hard and rng.random() < HARD_SHARE:
            number, prompt = self.hard[rng.integers(len(self.hard))]
            record = self.records[number]
        if not self.stored_views:
            return self._look(record, rng, present) | {"prompt": prompt}
        view = self.epoch % self.stored_views
        sample = self._look(record, self._view_rng(record.image_id, view), present, with_pixels=False)
        return sample | {"prompt": prompt, "image_id": record.image_id, "view": view}

    def pixels(self, image_id: str, view: int) -> np.ndarray:
        """Returns a view of an image, float32 (3, S, S), normalised."""
        return self._look(self.by_image[image_id], self._view_rng(image_id, view), False)["pixel_values"]

    def _view_rng(self, image_id: str, view: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, view, zlib.crc32(image_id.encode())))

    def _look(self, record: Any, rng: np.random.Generator, present: bool, with_pixels: bool = True) -> dict[str, Any]:
        """Augments a row's photo and mask alike, and letterboxes them; the photo can be left out."""
        mask = read_mask(self.manifest.mask_file(record))
        geometry = draw_geometry(mask.shape, self.crop_min, rng)
        mask = geometry.apply(mask)
        box = Letterbox.fit(mask.shape, self.image_size)
        height, width = box.content_hw
        target = np.zeros((self.image_size, self.image_size), np.float32)
        if present:
            target[:height, :width] = box.resize(mask) / np.float32(255)
        sample = {"target": target, "valid": box.valid()}
        if with_pixels:
            image = box.resize(geometry.apply(read_image(self.manifest.image_file(record))))
            content = degrade(augment_color(image, self.color_strength, rng), self.degrade_share, rng)
            sample["pixel_values"] = normalise(box.pad(content), self.mean, self.std)
        return sample

    def order(self) -> list[int]:
        """Returns the epoch's order of indices, drawn from (seed, epoch).

        A permutation; with `balance` drawn with replacement, each `label` or each `photograph` as often: a photograph
        may have many copies.
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.balance == "none":
            return rng.permutation(len(self)).tolist()
        names = np.array([r.label if self.balance == "label" else r.photo_id for r in self.records])
        _, group, counts = np.unique(names, return_inverse=True, return_counts=True)
        weights = 1 / counts[group]
        return rng.choice(len(self), len(self), p=weights / weights.sum()).tolist()


def draw_prompt(
    label: str, labels_of_image: set[str], negative_share: float, rng: np.random.Generator, paraphrases: bool = False
) -> tuple[str, bool]:
    """Draws a sentence, and whether what it asks for is what the row's mask shows.

    A negative one asks, half the time, for a thing that is on no wall, half the time for another label that is known
    to be absent whatever the image has: never for one that it has, and never for a taping area against a joint line.
    The sentence is one of the listed ones, or with `paraphrases` a generated one.
    """

    def ask(wanted: str) -> str:
        return draw_sentence(wanted, rng) if paraphrases else str(rng.choice(PROMPTS[wanted]))

    if rng.random() >= negative_share:
        return ask(label), True
    others = [o for o in ABSENT_LABELS[label] if all(o in ABSENT_LABELS[has] for has in labels_of_image)]
    if others and rng.random() < 0.5:
        return ask(str(rng.choice(others))), False
    return draw_absent(rng) if paraphrases else str(rng.choice(ABSENT_THINGS)), False
