"""Masks of photos that are larger than the training photos: tile by tile, at the scale that the model knows."""

from collections.abc import Iterator

import numpy as np

from drywall_seg.images import Letterbox, normalise, read_image
from drywall_seg.inference.predict import Prediction, Predictor, first_level, presence_of, sigmoid, to_levels
from drywall_seg.inference.tiling import check_size, tiled_scores

NATIVE = 640
"""Side in pixels of the photos that the models were trained on: a tile is as large."""


def is_large(size_hw: tuple[int, int]) -> bool:
    """Says whether a photo is one to tile: more than one and a half tiles long."""
    return max(size_hw) > 1.5 * NATIVE


def predict_large(
    predictor: Predictor,
    image: object,
    prompts: list[str],
    threshold: float | None = None,
    tile: int = NATIVE,
    with_probs: bool = True,
) -> list[Prediction]:
    """Predicts as `Predictor.predict`, tile by tile.

    Presence is that of the tile which has most of it. Of the scores a row of tiles is in memory at a time, unless whole
    probabilities are asked for.

    Args:
        predictor: The model.
        image: A path, PIL image or uint8 array (H, W, 3).
        prompts: The sentences.
        threshold: For all of them; None for the stored one of each.
        tile: Side of a tile in pixels of the photo.
        with_probs: Else `.probs` is None.

    Raises:
        ImageError: If the photo cannot be read.
        ValueError: If it has over 200 megapixels.
    """
    photo = read_image(image)
    check_size(photo.shape[:2], str(image) if isinstance(image, str) else "photo")
    embeddings = predictor.backend.encode_prompts(prompts)
    cuts = [predictor.threshold_for(text) if threshold is None else threshold for text in prompts]
    presence = np.zeros(len(prompts))
    masks = np.zeros((len(prompts), *photo.shape[:2]), np.uint8)
    probs = np.zeros(masks.shape, np.float32) if with_probs else [None] * len(prompts)
    for top, logits in _rows(predictor, photo, embeddings, tile, presence):
        rows = slice(top, top + logits.shape[1])
        for number, cut in enumerate(cuts):
            part = sigmoid(logits[number])
            masks[number, rows] = (to_levels(part) >= first_level(cut)) * np.uint8(255)
            if with_probs:
                probs[number, rows] = part
    masks[presence < predictor.presence_cut] = 0
    answers = zip(prompts, probs, masks, cuts, presence.tolist(), strict=True)
    return [Prediction(*answer) for answer in answers]


def _rows(
    predictor: Predictor, photo: np.ndarray, embeddings: np.ndarray, tile: int, presence: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields first row and logits (P, rows, W), and raises `presence` (P) to that of each tile."""
    backend, count = predictor.backend, len(embeddings)
    box = Letterbox.fit((tile, tile), backend.image_size)

    def score(tiles: np.ndarray) -> np.ndarray:
        pixels = [normalise(box.pixels(window), backend.mean, backend.std) for window in tiles]
        owners = [number for number in range(len(tiles)) for _ in range(count)]
        logits = backend.decode(backend.encode_images(np.stack(pixels)), owners, np.tile(embeddings, (len(tiles), 1)))
        for plane, number in zip(logits, np.tile(np.arange(count), len(tiles)), strict=True):
            presence[number] = max(presence[number], presence_of(plane.ravel()))
        return np.stack([box.restore(plane) for plane in logits]).reshape(len(tiles), count, tile, tile)

    return tiled_scores(photo, count, score, tile)
