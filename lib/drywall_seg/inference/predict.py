"""Photos and sentences in, masks out: numpy and Pillow around a backend that is loaded when it is needed."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from drywall_seg.images import Letterbox, normalise, read_image
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import read_json

THRESHOLDS_FILE = "thresholds.json"
DEFAULT_THRESHOLD = 0.5


class Backend(Protocol):
    """What a Predictor needs of a model; arrays in, arrays out."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    trained_on: frozenset[str]
    """Hashes of the photographs behind the weights."""

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Embeds P sentences to float32 (P, D)."""

    def encode_images(self, pixel_values: np.ndarray) -> Any:
        """Encodes float32 (B, 3, S, S) to features."""

    def decode(self, features: Any, images: list[int], prompt_embeddings: np.ndarray) -> np.ndarray:
        """Decodes embeddings (N, D), each with the features of the image numbered, to logits float32 (N, S, S)."""


@dataclass(frozen=True)
class Prediction:
    """What a model says to one photo and one sentence."""

    prompt: str
    probs: np.ndarray
    """float32 (H, W) in [0, 1], at the photo's own size."""
    mask: np.ndarray
    """uint8 (H, W), values {0, 255}: the delivered mask; empty where presence is below its cut."""
    threshold: float
    presence: float
    """In [0, 1]: is what was asked for there at all. Mean probability of the surest thousandth of the pixels."""


def to_levels(probs: np.ndarray) -> np.ndarray:
    """Rounds probabilities in [0, 1] to uint8 levels, round(255 p)."""
    scaled = probs * np.float32(255)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def first_level(threshold: float) -> int:
    """Returns the lowest level that a threshold lets through, ceil(255 t): the raw mask is level >= this, everywhere.

    >>> first_level(0.4), first_level(0.5)
    (102, 128)
    """
    return math.ceil(255 * threshold)


class Predictor:
    """A loaded model with its thresholds."""

    def __init__(self, backend: Backend, thresholds: dict[str, float] | None = None, presence_cut: float = 0.0) -> None:
        """Takes thresholds by label; a label without one gets 0.5. `chosen` says where they were chosen, and how."""
        self.backend = backend
        self.presence_cut = presence_cut
        self.chosen = "nowhere: 0.5"
        self.thresholds = dict.fromkeys(LABELS, DEFAULT_THRESHOLD) | (thresholds or {})
        self._threads = ThreadPoolExecutor(os.cpu_count())  # for what numpy and Pillow do outside Python's lock

    @classmethod
    def load(cls, name_or_dir: str | Path, image_size: int | None = None, device: str | None = None) -> "Predictor":
        """Loads `compact`, a checkpoint folder, or a hub id, onto the GPU where there is one.

        Raises:
            ValueError: If the folder holds no model that is known.
        """
        from drywall_seg.inference.torch_backend import TorchBackend  # torch is imported here, not before
        from drywall_seg.models import checkpoint_folder, load_segmenter

        file = checkpoint_folder(name_or_dir) / THRESHOLDS_FILE
        stored = read_json(file) if file.is_file() else {}
        backend = TorchBackend(load_segmenter(name_or_dir, image_size).for_inference(), device)
        predictor = cls(backend, stored.get("thresholds"), stored.get("presence_cut", 0.0))
        predictor.chosen = stored.get("chosen", predictor.chosen)
        return predictor

    def predict(self, image: Any, prompts: list[str], threshold: float | None = None) -> list[Prediction]:
        """Predicts a mask for each prompt on one photo, which is encoded once.

        Args:
            image: A path, PIL image or uint8 array (H, W, 3).
            prompts: The sentences.
            threshold: For all of them; None for the stored one of each.

        Raises:
            ImageError: If the photo cannot be read.
        """
        return self.predict_batch([image], [prompts], threshold)[0]

    def predict_batch(
        self, images: Sequence[Any], prompts: Sequence[list[str]], threshold: float | None = None
    ) -> list[list[Prediction]]:
        """Predicts for several photos, each with its own prompts; see `predict`."""
        photos = [read_image(image) for image in images]
        boxes = [Letterbox.fit(photo.shape[:2], self.backend.image_size) for photo in photos]
        mean, std = self.backend.mean, self.backend.std
        pixels = [normalise(box.pixels(photo), mean, std) for box, photo in zip(boxes, photos, strict=True)]
        texts = [text for asked in prompts for text in asked]
        owners = [number for number, asked in enumerate(prompts) for _ in asked]
        if not texts:
            return [[] for _ in images]
        features = self.backend.encode_images(np.stack(pixels))
        logits = self.backend.decode(features, owners, self.backend.encode_prompts(texts))
        cuts = [self.threshold_for(text) if threshold is None else threshold for text in texts]
        asked_of = [boxes[owner] for owner in owners]
        answers = self._threads.map(_prediction, texts, logits, asked_of, cuts, [self.presence_cut] * len(texts))
        results: list[list[Prediction]] = [[] for _ in images]
        for owner, answer in zip(owners, answers, strict=True):
            results[owner].append(answer)
        return results

    def threshold_for(self, prompt: str) -> float:
        """Returns the stored threshold of a sentence's label: its own, or that of the nearest canonical sentence."""
        for label in LABELS:
            if prompt == canonical_prompt(label):
                return self.thresholds[label]
        embeddings = self.backend.encode_prompts([prompt, *map(canonical_prompt, LABELS)])
        units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return self.thresholds[LABELS[int(np.argmax(units[1:] @ units[0]))]]


def _prediction(prompt: str, logits: np.ndarray, box: Letterbox, threshold: float, cut: float) -> Prediction:
    probs = sigmoid(box.restore(logits))
    presence = presence_of(logits[: box.content_hw[0], : box.content_hw[1]].ravel())
    inside = (to_levels(probs) >= first_level(threshold)) & (presence >= cut)
    return Prediction(prompt, probs, inside.view(np.uint8) * np.uint8(255), threshold, presence)


def presence_of(logits: np.ndarray) -> float:
    """Returns the mean probability of the largest thousandth of logits (N)."""
    count = max(1, logits.size // 1000)
    largest = np.maximum.reduceat(logits, np.arange(0, logits.size, 100))  # of each run of 100
    if len(largest) > count:  # that many runs reach `least`, so that none of the largest lies below it
        least = np.partition(largest, -count)[-count]
        logits = logits[logits >= least]
    return float(sigmoid(np.partition(logits, -count)[-count:]).mean())


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities in [0, 1], float32."""
    probs = np.clip(logits, -80, 80, dtype=np.float32)
    np.exp(np.negative(probs, out=probs), out=probs)  # in place: new memory costs more than the arithmetic
    probs += 1
    return np.reciprocal(probs, out=probs)
