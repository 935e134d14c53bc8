"""The torch backend: a Segmenter as arrays in, arrays out."""

import ctypes
import os
import platform
import sys

import numpy as np
import torch

from drywall_seg.models.base import Features, Segmenter
from drywall_seg.models.weights import hash_weights

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as in malloc.h


def default_device() -> str:
    """Returns `cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """Returns what a result was made on, in words: the GPU's name, or the processor and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()} CPU, {os.cpu_count()} cores"


def half_precision(device: torch.device | str) -> torch.dtype | None:
    """Returns the 16-bit type for a device, None on a CPU.

    bfloat16 from compute capability 8.0 on; a T4 (7.5) has tensor cores for float16 only.
    """
    if torch.device(device).type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def keep_memory() -> bool:
    """Asks glibc to keep freed memory for the next photo, and says whether it did.

    Else it gives large arrays back to the system and takes them anew, which can cost a third of a small model's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, 32 << 20) and mallopt(_TRIM_THRESHOLD, 512 << 20))


class TorchBackend:
    """Runs a segmenter, without gradients, in half precision where the device has it."""

    def __init__(self, segmenter: Segmenter, device: str | None = None, folded: bool = False) -> None:
        """Moves the segmenter to the device and into evaluation mode; folded, into its form for inference."""
        self._weights = segmenter
        self.segmenter = (segmenter.for_inference() if folded else segmenter).to(device or default_device()).eval()
        keep_memory()
        self.image_size, self.mean, self.std = segmenter.image_size, segmenter.mean, segmenter.std
        self.trained_on = segmenter.trained_on

    @property
    def model_hash(self) -> str:
        """Stands for the weights, as they are now and before any folding."""
        return hash_weights(self._weights)

    def _autocast(self) -> torch.autocast:
        device = self.segmenter.device
        dtype = half_precision(device) if self._weights.half_predicts else None
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Embeds P sentences to float32 (P, D)."""
        return self.segmenter.encode_prompts(prompts).float().cpu().numpy()

    @torch.no_grad()
    def encode_images(self, pixel_values: np.ndarray) -> Features:
        """Encodes float32 (B, 3, S, S)."""
        with self._autocast():
            return self.segmenter.encode_images(torch.from_numpy(pixel_values).to(self.segmenter.device))

    @torch.no_grad()
    def decode(self, features: Features, images: list[int], prompt_embeddings: np.ndarray) -> np.ndarray:
        """Decodes embeddings (N, D), each with the features of the image numbered, to logits float32 (N, S, S)."""
        device = self.segmenter.device
        if len(set(images)) == 1:  # a view, not copies
            chosen = tuple(f[images[:1]].expand(len(images), *f.shape[1:]) for f in features)
        else:
            chosen = tuple(f[images] for f in features)
        embeddings = torch.from_numpy(prompt_embeddings).to(device)
        with self._autocast():
            logits = self.segmenter.decode(chosen, embeddings)
        return logits.float().cpu().numpy()
