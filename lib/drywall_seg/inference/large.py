"""Photos larger than a model's input: a view of the whole for context, and tiles for what is finer than it shows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from drywall_seg.images import STRIP, Letterbox, normalise
from drywall_seg.inference.scores import presence_of
from drywall_seg.inference.tiling import tiled_scores

if TYPE_CHECKING:
    from drywall_seg.inference.predict import Backend

TILE = 480
"""Side of a tile in pixels of the photo: a part, as training crops it, of the photos of 640 that the models know."""
LARGE = 960
"""Longer photos are tiled."""
LONGEST = 2.0
"""A photo longer than this many times its short side, a panorama, has several views side by side."""
CONTEXT = {"crack": 0.5, "taping_area": 1.0, "joint_line": 1.0}
"""Weight of the whole view, by label, 1 for others; the tiles have the rest.

A photo of more pixels mostly shows the same wall, and the piece of a wide joint in a tile looks like nothing at all:
on photos of val enlarged four times the tiles alone have a mean Dice of .25 on taping areas, the whole view .86.
"""
SEEN = (-3.0, 1.0)
"""Logits within which the whole view counts for what tiles see too: it misses fine cracks, or draws them too wide."""


def tile_side(size_hw: tuple[int, int], tile: int | None = None) -> int:
    """Returns the side of the tiles for a photo, 0 where it is predicted whole.

    It is `TILE` where a photo is longer than `LARGE`, or else set by hand: 0 for never, or the side, for longer photos.

    Raises:
        ValueError: If the tile is too small to show anything.
    """
    if tile and tile < 64:
        raise ValueError(f"a tile of {tile} pixels shows nothing; 0 for none, or 64 and more")
    side, longest = (TILE, LARGE) if tile is None else (tile, tile)
    return side if max(size_hw) > longest else 0


def large_logits(
    backend: "Backend",
    photo: np.ndarray,
    embeddings: np.ndarray,
    context: np.ndarray,
    tile: int,
    presence: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """Scores a photo in two views, and averages them.

    Args:
        backend: The model.
        photo: uint8 (H, W, 3).
        embeddings: float32 (P, D).
        context: (P), weight of the whole view; where all are 1 there are no tiles.
        tile: Side of a tile in pixels of the photo.
        presence: (P), raised to the largest presence in a view that has a weight.

    Yields:
        First row and logits float32 (P, rows, W), from the top down; a row of tiles is in memory at a time.
    """
    size, height, width = backend.image_size, *photo.shape[:2]

    def score(canvases: np.ndarray, content_hw: tuple[int, int], chosen: np.ndarray) -> np.ndarray:
        pixels = np.stack([normalise(canvas, backend.mean, backend.std) for canvas in canvases])
        owners = [number for number in range(len(canvases)) for _ in chosen]
        asked = np.tile(embeddings[chosen], (len(canvases), 1))
        logits = backend.decode(backend.encode_images(pixels), owners, asked)
        for plane, number in zip(logits, np.tile(chosen, len(canvases)), strict=True):
            seen = presence_of(plane[: content_hw[0], : content_hw[1]].ravel())
            presence[number] = max(presence[number], seen)
        return logits.reshape(len(canvases), len(chosen), size, size)

    side = min(max(height, width), round(LONGEST * min(height, width)))
    whole = Letterbox.fit((height, width), round(size * max(height, width) / side))
    everyone, (fine,) = np.arange(len(embeddings)), np.nonzero(context < 1)
    shown = tuple(min(size, length) for length in whole.content_hw)
    rows = tiled_scores(whole.resize(photo), len(everyone), lambda tiles: score(tiles, shown, everyone), size)
    views = np.concatenate([part for _, part in rows], axis=1)
    if not len(fine):
        for top in range(0, height, STRIP):
            yield top, np.stack([whole.restore(view, (top, min(top + STRIP, height))) for view in views])
        return
    views[fine] = np.clip(views[fine], *SEEN)
    box = Letterbox.fit((tile, tile), size)

    def score_tiles(tiles: np.ndarray) -> np.ndarray:
        logits = score(np.stack([box.pixels(window) for window in tiles]), box.content_hw, fine)
        return np.array([[box.restore(plane) for plane in planes] for planes in logits])

    for top, planes in tiled_scores(photo, len(fine), score_tiles, tile):
        both = np.stack([whole.restore(view, (top, top + planes.shape[1])) for view in views])
        weight = context[fine, None, None].astype(np.float32)
        both[fine] = both[fine] * weight + planes * (1 - weight)
        yield top, both
