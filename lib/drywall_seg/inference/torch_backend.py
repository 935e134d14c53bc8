"""The torch backend: a Segmenter as arrays in, arrays out."""

import os
import platform

import numpy as np
import torch

from drywall_seg.models.base import Features, Segmenter


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


class TorchBackend:
    """Runs a segmenter, without gradients, in half precision where the device has it."""

    def __init__(self, segmenter: Segmenter, device: str | None = None) -> None:
        """Moves the segmenter to the device and into evaluation mode."""
        self.segmenter = segmenter.to(device or default_device()).eval()
        self.image_size, self.mean, self.std = segmenter.image_size, segmenter.mean, segmenter.std
        self.trained_on = segmenter.trained_on

    def _autocast(self) -> torch.autocast:
        device = self.segmenter.device
        dtype = half_precision(device)
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
        index = torch.tensor(images, device=device)
        embeddings = torch.from_numpy(prompt_embeddings).to(device)
        with self._autocast():
            logits = self.segmenter.decode(tuple(f[index] for f in features), embeddings)
        return logits.float().cpu().numpy()
