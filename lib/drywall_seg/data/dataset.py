"""Training samples: a photo, a sentence, and the pixels that it means."""

from typing import Any

import numpy as np
from torch.utils.data import Dataset

from drywall_seg.data.augment import augment_color, augment_geometry, degrade
from drywall_seg.data.manifest import Manifest
from drywall_seg.images import Letterbox, normalise, read_image, read_mask
from drywall_seg.paraphrases import draw_absent, draw_sentence
from drywall_seg.prompts import ABSENT_LABELS, ABSENT_THINGS, PROMPTS


class PromptedDataset(Dataset):
    """(image, label) rows as letterboxed samples; what is drawn at random depends on (seed, epoch, index) alone.

    Set `epoch` before each pass. Each sample is a dictionary:
        pixel_values: float32 (3, S, S), normalised.
        target: float32 (S, S) in [0, 1], the share of the pixel that is target; all 0 for a negative prompt.
        valid: bool (S, S), false in the padding.
        prompt: the sentence.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int = 42,
        negative_share: float = 0.0,
        crop_min: float = 1.0,
        color_strength: float = 0.0,
        degrade_share: float = 0.0,
        joint_line_repeats: int = 1,
        paraphrases: bool = False,
        balance_labels: bool = False,
    ) -> None:
        self.manifest, self.image_size, self.mean, self.std = manifest, image_size, mean, std
        self.seed, self.negative_share = seed, negative_share
        self.crop_min, self.color_strength = crop_min, color_strength
        self.degrade_share, self.paraphrases = degrade_share, paraphrases
        self.balance_labels = balance_labels
        self.epoch = 0
        rows = list(manifest.rows(split).itertuples(index=False))
        self.records = [r for r in rows for _ in range(joint_line_repeats if r.label == "joint_line" else 1)]
        table = manifest.table
        self.labels_of = table.groupby("image_id").label.agg(set).to_dict()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        labels = self.labels_of[record.image_id]
        prompt, present = draw_prompt(record.label, labels, self.negative_share, rng, self.paraphrases)
        image, mask = read_image(self.manifest.image_file(record)), read_mask(self.manifest.mask_file(record))
        image, mask = augment_geometry(image, mask, self.crop_min, rng)
        box = Letterbox.fit(image.shape[:2], self.image_size)
        content = degrade(augment_color(box.resize(image), self.color_strength, rng), self.degrade_share, rng)
        height, width = box.content_hw
        target = np.zeros((self.image_size, self.image_size), np.float32)
        if present:
            target[:height, :width] = box.resize(mask) / np.float32(255)
        return {
            "pixel_values": normalise(box.pad(content), self.mean, self.std),
            "target": target,
            "valid": box.valid(),
            "prompt": prompt,
        }

    def order(self) -> list[int]:
        """Returns the epoch's order of indices, drawn from (seed, epoch).

        A permutation; with `balance_labels` drawn with replacement, each label as often.
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        if not self.balance_labels:
            return rng.permutation(len(self)).tolist()
        labels = np.array([record.label for record in self.records])
        names, counts = np.unique(labels, return_counts=True)
        weights = 1 / counts[np.searchsorted(names, labels)]
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
