"""The interface that every model fills in."""

from pathlib import Path

import torch
from torch import Tensor, nn

Features = tuple[Tensor, ...]
"""What an image encoder gives: tensors whose first dimension is the batch."""


class Segmenter(nn.Module):
    """An image encoder and a prompt encoder that meet in a decoder.

    The image is encoded once for any number of prompts. `pixel_values` are already resized and normalised
    (`images.Letterbox`, `images.normalise`); `forward` does neither.
    """

    image_size: int
    """Side S of the square input in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __init__(self) -> None:
        super().__init__()
        self._prompt_cache: dict[str, Tensor] = {}

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S); the costly part."""
        raise NotImplementedError

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes features of B images with embeddings (B, D) to logits (B, S, S)."""
        raise NotImplementedError

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Runs the prompt encoder: P sentences to (P, D)."""
        raise NotImplementedError

    def parts(self) -> dict[str, list[nn.Module]]:
        """Returns the modules of `decoder` and, under `encoder`, all others."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes `segmenter.json` and `model.safetensors` into an existing folder."""
        raise NotImplementedError

    def forward(self, pixel_values: Tensor, prompt_embeddings: Tensor) -> Tensor:
        """Returns logits (B, S, S) for images (B, 3, S, S), each with its own prompt embedding (B, D)."""
        return self.decode(self.encode_images(pixel_values), prompt_embeddings)

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds sentences (P) to (P, D); each text once, until the weights may have changed.

        While gradients are wanted for the prompt encoder nothing is cached.
        """
        if torch.is_grad_enabled() and self._prompt_encoder_trains():
            return self.embed_prompts(prompts)
        new = list(dict.fromkeys(text for text in prompts if text not in self._prompt_cache))
        if new:
            with torch.no_grad():
                self._prompt_cache.update(zip(new, self.embed_prompts(new), strict=True))
        return torch.stack([self._prompt_cache[text] for text in prompts])

    def _prompt_encoder_trains(self) -> bool:
        raise NotImplementedError

    def forget_prompts(self) -> None:
        """Drops cached embeddings; called wherever weights, mode, device or type change."""
        self._prompt_cache.clear()

    def train(self, mode: bool = True) -> "Segmenter":
        """Sets the mode; frozen parts stay in evaluation mode, so that their BatchNorm never moves."""
        super().train(mode)
        for module in (m for part in self.parts().values() for m in part):
            if not any(p.requires_grad for p in module.parameters()):
                module.eval()
        self.forget_prompts()
        return self

    def load_state_dict(self, *args, **kwargs):  # noqa: D102
        self.forget_prompts()
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args, **kwargs):
        self.forget_prompts()
        return super()._apply(*args, **kwargs)

    def trainable_parameters(self, part: str) -> list[nn.Parameter]:
        """Freezes everything but `part` (`decoder` or `all`) and returns what is left to train.

        Raises:
            ValueError: If there is no such part.
        """
        if part not in ("decoder", "all"):
            raise ValueError(f"trainable is {part!r}, not decoder or all")
        self.requires_grad_(part == "all")
        for module in self.parts()["decoder"]:
            module.requires_grad_(True)
        self.forget_prompts()
        return [p for p in self.parameters() if p.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
