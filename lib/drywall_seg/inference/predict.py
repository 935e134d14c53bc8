"""Photos and sentences in, masks out: numpy and Pillow around a backend that is loaded when it is needed."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from drywall_seg.images import Letterbox, normalise, read_image
from drywall_seg.inference.large import CONTEXT, large_logits, tile_side
from drywall_seg.inference.postprocess import PostProcessing, postprocess, read_delivery
from drywall_seg.inference.scores import count_around, doubt_of, first_level, presence_of, sigmoid, to_levels
from drywall_seg.prompts import LABELS, sentence_of
from drywall_seg.runs import read_object

THRESHOLDS_FILE = "thresholds.json"
DEFAULT_THRESHOLD = 0.5


class Backend(Protocol):
    """What a Predictor needs of a model; arrays in, arrays out."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    trained_on: frozenset[str]
    """Hashes of the photographs behind the weights."""
    model_hash: str
    """Stands for the weights."""

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
    probs: np.ndarray | None
    """float32 (H, W) in [0, 1], at the photo's own size; None where they were not wanted."""
    mask: np.ndarray
    """uint8 (H, W), {0, 255}: the delivered mask, after post-processing; empty where presence is below its cut."""
    threshold: float
    presence: float
    """In [0, 1]: is what was asked for there at all. Mean probability of the surest thousandth of the pixels."""
    doubt: float = 0.0
    """In [0, 1]: how much of the mask hangs on where the threshold lies; see `scores.doubt_of`."""


class Predictor:
    """A loaded model with its thresholds."""

    def __init__(
        self,
        backend: Backend,
        thresholds: dict[str, float] | None = None,
        presence_cut: float = 0.0,
        postprocessing: dict[str, PostProcessing] | None = None,
    ) -> None:
        """Takes thresholds and post-processing by label; a label without gets 0.5, and none.

        `chosen` says where thresholds were chosen, and how; `reference` is what monitoring compares with, by label;
        `tile` sets by hand what `large.tile_side` else decides.
        """
        self.backend = backend
        self.presence_cut = presence_cut
        self.chosen = "nowhere: 0.5"
        self.thresholds = dict.fromkeys(LABELS, DEFAULT_THRESHOLD) | (thresholds or {})
        self.postprocessing = dict.fromkeys(self.thresholds, PostProcessing()) | (postprocessing or {})
        self.reference: dict[str, Any] = {}
        self.tile: int | None = None
        self._threads = ThreadPoolExecutor(os.cpu_count())  # for what numpy and Pillow do outside Python's lock

    @classmethod
    def load(
        cls, name_or_dir: str | Path, image_size: int | None = None, device: str | None = None, raw: bool = False
    ) -> "Predictor":
        """Loads `compact`, a checkpoint folder, a hub id, or an exported `.onnx`, onto the GPU where there is one.

        Args:
            name_or_dir: The model.
            image_size: Side of the square input in pixels; None for the checkpoint's own, which a `.onnx` has alone.
            device: None for the GPU where there is one.
            raw: Leave post-processing out.

        Raises:
            ValueError: If the folder or file holds no model that is known.
        """
        if str(name_or_dir).endswith(".onnx"):
            from drywall_seg.inference.onnx_backend import OnnxBackend

            backend = OnnxBackend(name_or_dir)
            if image_size not in (None, backend.image_size):
                raise ValueError(f"{name_or_dir}: exported for images of {backend.image_size} pixels, not {image_size}")
            stored, file = backend.stored, name_or_dir
        else:
            from drywall_seg.inference.torch_backend import TorchBackend  # torch is imported here, not before
            from drywall_seg.models import checkpoint_folder, load_segmenter

            file = checkpoint_folder(name_or_dir) / THRESHOLDS_FILE
            stored = read_object(file) if file.is_file() else {}
            backend = TorchBackend(load_segmenter(name_or_dir, image_size), device, folded=True)
        thresholds, cut, steps = read_delivery(stored, file)
        predictor = cls(backend, thresholds, cut, {} if raw else steps)
        predictor.chosen = str(stored.get("chosen", predictor.chosen))
        predictor.reference = stored.get("reference", {})
        return predictor

    def predict(
        self, image: Any, prompts: list[str], threshold: float | None = None, with_probs: bool = True
    ) -> list[Prediction]:
        """Predicts a mask for each prompt on one photo, which is encoded once, or tile by tile where it is large.

        Args:
            image: A path, PIL image or uint8 array (H, W, 3).
            prompts: The sentences.
            threshold: For all of them; None for the stored one of each.
            with_probs: Keep probabilities: four bytes for each pixel and prompt.

        Raises:
            ImageError: If the photo cannot be read.
        """
        return self.predict_batch([image], [prompts], threshold, with_probs)[0]

    def predict_batch(
        self,
        images: Sequence[Any],
        prompts: Sequence[list[str]],
        threshold: float | None = None,
        with_probs: bool = True,
    ) -> list[list[Prediction]]:
        """Predicts for several photos, each with its own prompts; see `predict`."""
        photos = [read_image(image) for image in images]
        large = [tile_side(photo.shape[:2], self.tile) for photo in photos]
        results: list[list[Prediction]] = [[] for _ in images]
        for number, side in enumerate(large):
            if side and prompts[number]:
                results[number] = self._predict_large(photos[number], prompts[number], threshold, side, with_probs)
        whole = [number for number, side in enumerate(large) if not side and prompts[number]]
        if not whole:
            return results
        backend = self.backend
        boxes = [Letterbox.fit(photos[number].shape[:2], backend.image_size) for number in whole]
        views = [box.pixels(photos[number]) for box, number in zip(boxes, whole, strict=True)]
        features = backend.encode_images(np.stack([normalise(view, backend.mean, backend.std) for view in views]))
        texts = [text for number in whole for text in prompts[number]]
        owners = [place for place, number in enumerate(whole) for _ in prompts[number]]
        logits = backend.decode(features, owners, backend.encode_prompts(texts))
        cuts = [self.threshold_for(text) if threshold is None else threshold for text in texts]
        asked_of = [boxes[owner] for owner in owners]
        answers = self._threads.map(self._answer, texts, logits, asked_of, cuts, [with_probs] * len(texts))
        for owner, answer in zip(owners, answers, strict=True):
            results[whole[owner]].append(answer)
        return results

    def _answer(
        self, prompt: str, logits: np.ndarray, box: Letterbox, threshold: float, with_probs: bool
    ) -> Prediction:
        probs = sigmoid(box.restore(logits))
        presence = presence_of(logits[: box.content_hw[0], : box.content_hw[1]].ravel())
        levels = to_levels(probs)
        raw = (levels >= first_level(threshold)).view(np.uint8) * np.uint8(255)
        doubt = doubt_of(count_around(levels, threshold), presence, self.presence_cut)
        mask = self._deliver(prompt, raw, presence)
        return Prediction(prompt, probs if with_probs else None, mask, threshold, presence, doubt)

    def _predict_large(
        self, photo: np.ndarray, prompts: list[str], threshold: float | None, tile: int, with_probs: bool
    ) -> list[Prediction]:
        cuts = [self.threshold_for(text) if threshold is None else threshold for text in prompts]
        presence, counts = np.zeros(len(prompts)), np.zeros((len(prompts), 2), np.int64)
        masks = np.zeros((len(prompts), *photo.shape[:2]), np.uint8)
        probs = np.zeros(masks.shape, np.float32) if with_probs else [None] * len(prompts)
        context = np.array([CONTEXT.get(self.label_for(text), 1.0) for text in prompts])
        embeddings = self.backend.encode_prompts(prompts)
        for top, logits in large_logits(self.backend, photo, embeddings, context, tile, presence):
            rows = slice(top, top + logits.shape[1])
            for number, cut in enumerate(cuts):
                part = sigmoid(logits[number])
                levels = to_levels(part)
                masks[number, rows] = (levels >= first_level(cut)) * np.uint8(255)
                counts[number] += count_around(levels, cut)
                if with_probs:
                    probs[number, rows] = part
        delivered = map(self._deliver, prompts, masks, presence)  # one after the other: each takes memory
        doubts = [doubt_of(*both, self.presence_cut) for both in zip(counts, presence, strict=True)]
        return list(map(Prediction, prompts, probs, delivered, cuts, presence.tolist(), doubts))

    def _deliver(self, prompt: str, raw: np.ndarray, presence: float) -> np.ndarray:
        if presence < self.presence_cut:
            return np.zeros_like(raw)
        return postprocess(raw, self.postprocessing[self.label_for(prompt)])

    def label_for(self, prompt: str) -> str:
        """Returns a sentence's label: its own, or that of the nearest canonical sentence."""
        labels = {sentence_of(label): label for label in self.thresholds}  # the model's own, also where strange here
        if prompt in labels:
            return labels[prompt]
        embeddings = self.backend.encode_prompts([prompt, *labels])
        units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return list(labels.values())[int(np.argmax(units[1:] @ units[0]))]

    def threshold_for(self, prompt: str) -> float:
        """Returns the stored threshold of a sentence's label."""
        return self.thresholds[self.label_for(prompt)]
