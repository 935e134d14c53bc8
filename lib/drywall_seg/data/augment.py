"""What training does to a photo and its mask before they are seen."""

import numpy as np
from PIL import Image, ImageFilter


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
