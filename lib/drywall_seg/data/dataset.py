"""Training samples: a photo, a sentence, and the pixels that it means."""

from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

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
        joint_line_repeats: int = 1,
        paraphrases: bool = False,
    ) -> None:
        self.manifest, self.image_size, self.mean, self.std = manifest, image_size, mean, std
        self.seed, self.negative_share = seed, negative_share
        self.crop_min, self.color_strength = crop_min, color_strength
        self.paraphrases = paraphrases
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
        content = augment_color(box.resize(image), self.color_strength, rng)
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
        """Returns the epoch's order of indices, drawn from (seed, epoch)."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self)).tolist()


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


def augment_geometry(
    image: np.ndarray, mask: np.ndarray, crop_min: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Crops, turns by quarters and mirrors image uint8 (H, W, 3) and mask (H, W) alike; nothing at crop_min 1.

    The crop is a square of crop_min to all of the longer side, cut to the image: never squashed.
    """
    if crop_min >= 1:
        return image, mask
    height, width = mask.shape
    side = max(1, round(rng.uniform(crop_min, 1) * max(height, width)))
    top = rng.integers(0, max(height - side, 0) + 1)
    left = rng.integers(0, max(width - side, 0) + 1)
    window = np.s_[top : top + side, left : left + side]
    turns, mirror = rng.integers(4), rng.random() < 0.5
    pair = (np.rot90(array[window], turns) for array in (image, mask))
    image, mask = (array[:, ::-1] if mirror else array for array in pair)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def augment_color(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness and contrast by up to `strength` (a share), and makes one in ten grey; nothing at 0."""
    if strength <= 0:
        return image
    brightness, contrast = 1 + rng.uniform(-strength, strength, 2)
    if rng.random() < 0.1:
        image = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    middle = image.mean(dtype=np.float64)
    changed = (image.astype(np.float32) - middle) * np.float32(contrast) + np.float32(middle * brightness)
    return np.clip(changed, 0, 255).astype(np.uint8)
