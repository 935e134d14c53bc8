"""Reading photos and masks, and the letterbox: one place for training and prediction (numpy and Pillow only)."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from drywall_seg.runs import is_address

UNREAD_SUFFIXES = (".heic", ".heif", ".avif")
"""Of phones' photos that are not read: they are named, not passed over."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", *UNREAD_SUFFIXES)

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
"""What a photo may be, whatever its name says: of all that Pillow reads some start a program, or raise anything."""

MOST_PIXELS = 200_000_000
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow warns at 89 and refuses at 179 megapixels, which panoramas have

STRIP = 512
"""Rows of a photo that are copied at once."""

LONGEST_SIDE = 4096
"""Pixels of a model's square input; more would take tens of GB."""

BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises of a broken file."""

PAD_VALUE = 127  # mid grey: about zero after either model's normalisation


class ImageError(ValueError):
    """A photo or mask that cannot be read; the message names the file."""


def read_image(source: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    """Reads a photo as upright RGB.

    EXIF orientation is applied; 16-bit and float grey are scaled to 8 bits, palettes and CMYK converted, and
    transparency is laid on white. Of an animation the first frame is taken.

    Args:
        source: A path, a PIL image, or an array: uint8 (H, W, 3), taken as it is.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        ImageError: If the file is missing, truncated, none of `FORMATS` or over `MOST_PIXELS`, or if an array has
            another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise ImageError(f"expected a uint8 array (H, W, 3), got {source.dtype} {source.shape}")
        return source
    if isinstance(source, Image.Image):
        return _to_rgb(source.copy(), "image")  # it is turned in place, and is somebody's
    try:
        with _opened(source) as file, Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height  # of the header: nothing is decoded yet
            if pixels > MOST_PIXELS:
                size, most = f"{pixels / 1e6:.0f} megapixels", MOST_PIXELS // 1_000_000
                raise ImageError(f"{source}: {size}, more than {most}; cut it into smaller photos")
            return _to_rgb(image, str(source))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{source}: no such file") from error
    except BROKEN as error:
        unread = str(source).lower().endswith(UNREAD_SUFFIXES)
        reason = "HEIC and AVIF are not read here: save it as JPEG" if unread else error
        raise ImageError(f"{source}: cannot be read as an image ({reason})") from error


@contextmanager
def _opened(source: str | os.PathLike) -> Iterator[Any]:
    if not is_address(source):
        if os.path.exists(source) and not os.path.isfile(source):  # a pipe would be waited for, a device read for ever
            raise ImageError(f"{source}: not a file")
        yield source
        return
    import fsspec

    with fsspec.open(str(source), "rb") as file:
        yield file


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    try:
        ImageOps.exif_transpose(image, in_place=True)  # else it copies, at Pillow's four bytes a pixel
    except (TypeError, ValueError, KeyError, SyntaxError, struct.error):
        pass  # damaged EXIF tells no orientation; the pixels may be whole
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 65535:
            raise ImageError(f"{name}: values of its {image.mode} pixels are not within 0 to 65535")
        # Integers are 16-bit; floats are in [0, 1], 8-bit or 16-bit values, whichever holds them.
        full = 65535 if image.mode.startswith("I") else next(v for v in (1, 255, 65535) if grey.max() <= v)
        image = Image.fromarray(np.round(grey * (255 / full)).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    width, height = image.size
    array = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP):  # Pillow hands over bytes, numpy copies them: never all at once
        bottom = min(top + STRIP, height)
        array[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return array


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Reads a mask as uint8 (H, W), values {0, 255}.

    Raises:
        ImageError: If it is not a single-channel PNG with just these values.
    """
    try:
        with _opened(path) as file, Image.open(file, formats=["PNG"]) as image:
            mask = np.array(image)
    except ImageError:
        raise
    except BROKEN as error:
        raise ImageError(f"{path}: cannot be read as a mask ({error})") from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or not np.isin(mask, (0, 255)).all():
        raise ImageError(f"{path}: a mask is one 8-bit channel with the values 0 and 255")
    return mask


@dataclass(frozen=True)
class Letterbox:
    """Where a photo lies in a square canvas: at its upper left corner, scaled alike in both directions."""

    size: int
    """Side of the canvas in pixels."""
    photo_hw: tuple[int, int]
    content_hw: tuple[int, int]

    @classmethod
    def fit(cls, photo_hw: tuple[int, int], size: int) -> "Letterbox":
        """Scales the longer side to `size`; the shorter keeps at least one pixel."""
        scale = size / max(photo_hw)
        height, width = (max(1, round(side * scale)) for side in photo_hw)
        return cls(size, tuple(photo_hw), (height, width))

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Resizes a photo uint8 (H, W, 3) and pads it with grey to uint8 (size, size, 3)."""
        return self.pad(self.resize(image))

    def pad(self, content: np.ndarray) -> np.ndarray:
        """Pads a photo that has the content's size already."""
        canvas = np.full((self.size, self.size, 3), PAD_VALUE, np.uint8)
        canvas[: self.content_hw[0], : self.content_hw[1]] = content
        return canvas

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resizes uint8 (H, W) or (H, W, 3) to the content's size, antialiased."""
        height, width = self.content_hw
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def restore(self, scores: np.ndarray, rows: tuple[int, int] | None = None) -> np.ndarray:
        """Cuts the padding off float32 (size, size) and resizes to the photo's own size, float32 (H, W).

        With `rows`, their first and end, only those of the photo.
        """
        content = np.ascontiguousarray(scores[: self.content_hw[0], : self.content_hw[1]], np.float32)
        height, width = self.photo_hw
        top, bottom = rows or (0, height)
        part = (0, top * len(content) / height, content.shape[1], bottom * len(content) / height)
        image = Image.fromarray(content)
        return np.asarray(image.resize((width, bottom - top), Image.Resampling.BILINEAR, part))

    def valid(self) -> np.ndarray:
        """Returns bool (size, size): true where the canvas shows the photo."""
        inside = np.zeros((self.size, self.size), bool)
        inside[: self.content_hw[0], : self.content_hw[1]] = True
        return inside


def normalise(canvas: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Turns uint8 (S, S, 3) into a model's float32 (3, S, S), channels last in memory; mean and std are in [0, 1]."""
    width = canvas.shape[1]
    scale, shift = 1 / (255 * np.float64(std)), np.float64(mean) / np.float64(std)
    rows = canvas.reshape(len(canvas), -1).astype(np.float32)  # whole rows at once: three channels alone are slow
    rows *= np.tile(np.float32(scale), width)
    rows -= np.tile(np.float32(shift), width)
    return rows.reshape(canvas.shape).transpose(2, 0, 1)


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) in (int, float) and -9 < v < 9 for v in value)


INPUT = {
    "image_size": (lambda v: type(v) is int and 0 < v <= LONGEST_SIDE, f"pixels up to {LONGEST_SIDE}"),
    "mean": (_is_color, "three numbers for values in [0, 1]"),
    "std": (lambda v: _is_color(v) and min(v) > 0, "three numbers above 0 for values in [0, 1]"),
}
"""What a stored model may say of its input, and in words."""


def check_input(path: str | os.PathLike, **stated: Any) -> None:
    """Refuses what is stated of a model's input (`INPUT`) where no photo can be brought to it.

    Raises:
        ValueError: Naming the file in which it stands, and the value.
    """
    for name, value in stated.items():
        allowed, words = INPUT[name]
        if not allowed(value):
            raise ValueError(f"{path}: {name} is {value!r:.80}, not {words}")


def list_images(folder: Path) -> list[Path]:
    """Returns all photos below a folder, sorted; hidden files and folders are left out.

    A link that leads nowhere, or a pipe, is among them where it has a photo's name: it is refused, not passed over.
    """
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
