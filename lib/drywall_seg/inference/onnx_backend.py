"""The onnxruntime backend: one exported file as arrays in, arrays out, without torch and transformers."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drywall_seg.images import INPUT, check_input
from drywall_seg.prompts import hash_text

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 1
"""Of the metadata; a file of another one is refused."""
SETTINGS, DECODER, PROMPT_ENCODER = (f"drywall_seg.{part}" for part in ("settings", "decoder", "prompt_encoder"))
"""What the metadata hold beside the image encoder, which is the file itself: JSON, and two graphs in base64."""

Tokenize = Callable[[str], dict[str, np.ndarray]]
"""From a sentence to the prompt encoder's inputs."""


class OnnxBackend:
    """Runs what `export.export_onnx` wrote."""

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        """Reads the `.onnx` file, for the device `cpu`, or with None for the GPU where onnxruntime offers one.

        Raises:
            ValueError: If the file is missing, damaged, no ONNX or not from `export_onnx`, or a package that it needs
                is missing; the file is named.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
        self._image_encoder = _start(str(path), path, device)
        parts = self._image_encoder.get_modelmeta().custom_metadata_map
        if missing := [key for key in (SETTINGS, DECODER, PROMPT_ENCODER) if key not in parts]:
            raise ValueError(f"{path}: not a model that drywall-seg exported, or only a part of it (no {missing[0]})")
        settings = _read_settings(parts[SETTINGS], path)
        self.image_size: int = settings["image_size"]
        self.mean, self.std = tuple(settings["mean"]), tuple(settings["std"])
        self.trained_on = frozenset(settings["trained_on"])
        self.model_hash: str = settings["model_hash"]
        """Stands for the weights: the same as that of the checkpoint."""
        self.stored: dict[str, Any] = settings["stored"]
        """What the checkpoint's thresholds.json holds; empty where it has none."""
        self._tokenize = _TOKENIZE[settings["architecture"]](settings, path)
        self._decoder = _start(_decode(parts[DECODER], path), path, device)
        self._prompt_encoder = _start(_decode(parts[PROMPT_ENCODER], path), path, device)
        self._prompt_cache: dict[str, np.ndarray] = {}

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Embeds P sentences to float32 (P, D); each text once, and alone, as torch does."""
        for text in prompts:
            if text not in self._prompt_cache:
                self._prompt_cache[text] = self._prompt_encoder.run(None, self._tokenize(text))[0][0]
        return np.stack([self._prompt_cache[text] for text in prompts])

    def encode_images(self, pixel_values: np.ndarray) -> list[np.ndarray]:
        """Encodes float32 (B, 3, S, S)."""
        return self._image_encoder.run(None, {"pixel_values": pixel_values})

    def decode(self, features: list[np.ndarray], images: list[int], prompt_embeddings: np.ndarray) -> np.ndarray:
        """Decodes embeddings (N, D), each with the features of the image numbered, to logits float32 (N, S, S)."""
        inputs = {"images": np.array(images, np.int64), "embeddings": prompt_embeddings}
        return self._decoder.run(None, inputs | {f"features_{n}": f for n, f in enumerate(features)})[0]


def _start(model: str | bytes, path: str | Path, device: str | None) -> "InferenceSession":
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: needs the package onnxruntime: pip install onnxruntime") from error
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    gpu = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    # Threads that are done would else spin for a while, and take the cores from the numpy that comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: damaged, or no ONNX that onnxruntime can run ({reason})") from error


def _decode(text: str, path: str | Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"{path}: damaged: a graph in its metadata is not base64 ({error})") from error


def _read_settings(text: str, path: str | Path) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: its settings are not JSON ({error})") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: of format {found!r:.80}, and this version reads {FORMAT}: export it anew")
    for name, allowed in _ALLOWED.items():
        if not allowed(settings.get(name)):
            raise ValueError(f"{path}: damaged: its {name} is {settings.get(name)!r:.80}")
    check_input(path, **{name: settings.get(name) for name in INPUT})
    return settings


def _word_hashes(settings: dict[str, Any], path: str | Path) -> Tokenize:
    """The compact model's: numbers of words and their pieces."""
    return lambda text: {"ids": np.array(hash_text(text, settings["buckets"]), np.int64)}


def _tokens(settings: dict[str, Any], path: str | Path) -> Tokenize:
    """CLIP's: token ids, cut and padded as the tokenizer's JSON says, and which of them are no padding."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: a CLIPSeg needs the package tokenizers: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_str(settings["tokenizer"])
    except Exception as error:  # the package's own kind
        raise ValueError(f"{path}: damaged: its tokenizer cannot be read ({error})") from error

    def tokenize(text: str) -> dict[str, np.ndarray]:
        tokens = tokenizer.encode(text)
        return {"ids": np.array([tokens.ids], np.int64), "attention_mask": np.array([tokens.attention_mask], np.int64)}

    return tokenize


_TOKENIZE = {"compact": _word_hashes, "clipseg": _tokens}
_ALLOWED: dict[str, Callable[[Any], bool]] = {
    "architecture": lambda v: isinstance(v, str) and v in _TOKENIZE,
    "trained_on": lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v),
    "model_hash": lambda v: isinstance(v, str),
    "stored": lambda v: isinstance(v, dict),
}
