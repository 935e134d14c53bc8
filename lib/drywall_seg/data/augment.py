"""What training does to a photo and its mask before they are seen."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter


class Geometry(NamedTuple):
    """A crop in pixels, quarter turns, and whether it is mirrored after them."""

    top: int
    left: int
    side: int
    turns: int
    mirror: bool

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Returns the part of an image (H, W, ...) or mask (H, W), turned and mirrored."""
        window = array[self.top : self.top + self.side, self.left : self.left + self.side]
        turned = np.rot90(window, self.turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirror else turned)


def draw_geometry(size_hw: tuple[int, int], crop_min: float, rng: np.random.Generator) -> Geometry:
    """Draws a crop, a turn by quarters and a mirroring; the whole image as it is at crop_min 1.

    The crop is a square of crop_min to all of the longer side, cut to the image: never squashed.
    """
    longer = max(size_hw)
    if crop_min >= 1:
        return Geometry(0, 0, longer, 0, False)
    side = max(1, round(rng.uniform(crop_min, 1) * longer))
    top, left = (int(rng.integers(0, max(length - side, 0) + 1)) for length in size_hw)
    return Geometry(top, left, side, int(rng.integers(4)), bool(rng.random() < 0.5))


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


def degrade(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Makes a share of the images uint8 (H, W, 3) worse in one of three ways, as cameras and messengers do.

    Blurred, as if out of focus; coarser, as if scaled up from a smaller photo; noisy, as if taken in the dark.
    """
    if share <= 0 or rng.random() >= share:
        return image
    way, photo = rng.integers(3), Image.fromarray(image)
    if way == 0:
        return np.asarray(photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5))))
    if way == 1:
        scale = rng.uniform(0.4, 0.8)
        small = photo.resize([max(1, round(side * scale)) for side in photo.size], Image.Resampling.BILINEAR)
        return np.asarray(small.resize(photo.size, Image.Resampling.BILINEAR))
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(3, 12))
    return np.clip(image + noise, 0, 255).astype(np.uint8)
