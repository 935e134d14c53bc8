"""Photos larger than a model's input: overlapping tiles, blended, a row of them in memory at a time."""

from collections.abc import Callable, Iterator

import numpy as np

from drywall_seg.images import PAD_VALUE

OVERLAP = 0.25
"""Least share of a tile that its neighbour covers too."""

Scores = Callable[[np.ndarray], np.ndarray]
"""From tiles uint8 (N, T, T, 3) to scores float32 (N, P, T, T), one plane for each of P sentences."""


def tile_starts(length: int, tile: int, overlap: float = OVERLAP) -> list[int]:
    """Returns where tiles begin along a side, evenly spread: the first at 0, the last at the end.

    One at 0 where a tile holds the side.

    >>> tile_starts(100, 40), tile_starts(30, 40)
    ([0, 30, 60], [0])
    """
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def blending_weights(tile: int) -> np.ndarray:
    """Returns a tile's weights along a side (T), highest in its middle and near 0 at its ends, but never 0."""
    phase = (np.arange(tile) + 0.5) / tile
    return np.float32(np.sin(np.pi * phase) ** 2 + 1e-4)


def tiled_scores(
    photo: np.ndarray, n_prompts: int, score: Scores, tile: int, batch_size: int = 2
) -> Iterator[tuple[int, np.ndarray]]:
    """Scores a photo uint8 (H, W, 3) tile by tile for P prompts, some tiles at once, and blends where they overlap.

    A tile's side is in pixels of the photo; where the photo is smaller, tiles are padded with grey.

    Yields:
        The first row, and float32 (P, rows, W) of the rows that no further tile changes, from the top down. No more
        than a row of tiles is held.
    """
    height, width = photo.shape[:2]
    tops, lefts = tile_starts(height, tile), tile_starts(width, tile)
    weights = blending_weights(tile)
    across = np.zeros(max(width, tile), np.float32)
    for left in lefts:
        across[left : left + tile] += weights
    total = np.zeros((n_prompts, tile, len(across)), np.float32)
    down = np.zeros(tile, np.float32)
    for number, top in enumerate(tops):
        for first in range(0, len(lefts), batch_size):
            chosen = lefts[first : first + batch_size]
            scores = score(np.stack([_tile(photo, top, left, tile) for left in chosen]))
            for left, planes in zip(chosen, scores, strict=True):
                total[:, :, left : left + tile] += planes * (weights[:, None] * weights)
        down += weights
        done = (tops[number + 1] if number + 1 < len(tops) else height) - top
        yield top, total[:, :done, :width] / (down[:done, None] * across[:width])
        total = np.concatenate([total[:, done:], np.zeros_like(total[:, :done])], axis=1)
        down = np.concatenate([down[done:], np.zeros_like(down[:done])])


def _tile(photo: np.ndarray, top: int, left: int, tile: int) -> np.ndarray:
    window = photo[top : top + tile, left : left + tile]
    beyond = [(0, tile - window.shape[0]), (0, tile - window.shape[1]), (0, 0)]
    return np.pad(window, beyond, constant_values=PAD_VALUE)
