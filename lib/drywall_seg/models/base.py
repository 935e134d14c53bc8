"""The interface that every model fills in."""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from drywall_seg.settings import TRAINABLE

Features = tuple[Tensor, ...]
"""What an image encoder gives: tensors whose first dimension is the batch."""


class Segmenter(nn.Module):
    """An image encoder and a prompt encoder that meet in a decoder.

    The image is encoded once for any number of prompts. `pixel_values` are already resized and normalised
    (`images.Letterbox`, `images.normalise`); `forward` does neither.
    """

    image_size: int
    """Side S of the square input in pixels."""
    size_step: int
    """What divides every side that the model takes."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    half_predicts: bool = True
    """Whether half precision is good enough for its masks on a GPU; training uses it anyway."""
    trained_on: frozenset[str] = frozenset()
    """Hashes of the photographs behind its weights (`splits.photo_hash`); scoring on those is left out."""

    def __init__(self) -> None:
        super().__init__()
        self._prompt_cache: dict[str, Tensor] = {}
        self._cached_at: tuple = ()

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S); the costly part.

        Raises:
            ValueError: If they are not square or `size_step` does not divide their side.
        """
        raise NotImplementedError

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes features of B images with embeddings (B, D) to logits (B, S, S)."""
        raise NotImplementedError

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Runs the prompt encoder: P sentences to (P, D)."""
        raise NotImplementedError

    def prompt_encoder(self) -> list[nn.Module]:
        """Returns the modules that `embed_prompts` runs."""
        raise NotImplementedError

    def parts(self) -> dict[str, list[nn.Module]]:
        """Returns the modules of `decoder` and, under `encoder`, all others."""
        raise NotImplementedError

    def image_blocks(self) -> list[nn.Module]:
        """Returns the image encoder's blocks, from the pixels on."""
        raise NotImplementedError

    def architecture(self) -> str:
        """Returns what its weights' names and shapes do not say of how it encodes an image."""
        return type(self).__name__

    def for_inference(self) -> "Segmenter":
        """Returns what predicts the same and cannot be trained or saved any more; itself where nothing is gained."""
        return self

    def begin_words(self, new: list[str], known: list[str]) -> None:
        """Makes ready to learn words that it may never have met; `known` are those that it finds something for."""

    def save(self, folder: Path) -> None:
        """Writes `segmenter.json` and `model.safetensors` into an existing folder."""
        raise NotImplementedError

    def forward(self, pixel_values: Tensor, prompt_embeddings: Tensor) -> Tensor:
        """Returns logits (B, S, S) for images (B, 3, S, S), each with its own prompt embedding (B, D)."""
        return self.decode(self.encode_images(pixel_values), prompt_embeddings)

    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds sentences (P) to (P, D); each text once, until the weights have changed.

        While the prompt encoder trains (in training mode or where gradients are wanted) nothing is kept.
        """
        new = list(dict.fromkeys(prompts))
        weights = [p for module in self.prompt_encoder() for p in module.parameters()]
        trains = any(p.requires_grad for p in weights)
        if trains and (self.training or torch.is_grad_enabled()):
            embeddings = dict(zip(new, self.embed_prompts(new), strict=True))
            return torch.stack([embeddings[text] for text in prompts])
        # An optimiser, or averaging in a copy, changes weights in place and tells nobody but this counter.
        state = tuple((id(p), None if p.is_inference() else p._version) for p in weights)
        if state != self._cached_at:
            self.forget_prompts()
            self._cached_at = state
        new = [text for text in new if text not in self._prompt_cache]
        if new:
            # In full precision and each alone, so that a sentence's embedding is the same to the bit whoever asks for
            # it first and in whose company: a training that goes on asks in another order.
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                self._prompt_cache.update((text, self.embed_prompts([text])[0]) for text in new)
        return torch.stack([self._prompt_cache[text] for text in prompts])

    def forget_prompts(self) -> None:
        """Drops cached embeddings; called wherever weights, mode, device or type change."""
        self._prompt_cache.clear()

    def train(self, mode: bool = True) -> "Segmenter":
        """Sets the mode; frozen parts stay in evaluation mode, so that their BatchNorm never moves."""
        super().train(mode)
        for module in (m for part in (*self.parts().values(), self.image_blocks()) for m in part):
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
        """Freezes everything but `part` and returns what is left to train.

        Args:
            part: `decoder`, `all`, or `decoder+K` for the decoder and the last K blocks of the image encoder.

        Raises:
            ValueError: If there is no such part.
        """
        if not re.fullmatch(TRAINABLE, part):
            raise ValueError(f"trainable is {part!r}, not decoder, decoder+K or all")
        blocks, count = self.image_blocks(), int(part.partition("+")[2] or 0)
        if count > len(blocks):
            raise ValueError(f"trainable is {part!r}, but the image encoder has {len(blocks)} blocks")
        self.requires_grad_(part == "all")
        for module in [*self.parts()["decoder"], *blocks[len(blocks) - count :]]:
            module.requires_grad_(True)
        self.train(self.training)  # what is frozen now leaves training mode
        return [p for p in self.parameters() if p.requires_grad]

    def check_side(self, *shape: int) -> None:
        """Refuses a side, or the shape of a batch of images, that the model cannot take.

        Raises:
            ValueError: If its last two sides differ, or `size_step` does not divide the last.
        """
        if len(set(shape[-2:])) != 1 or shape[-1] < 1 or shape[-1] % self.size_step:
            got = " x ".join(map(str, shape[-2:]))
            raise ValueError(f"images of {got} pixels, not square with a side that {self.size_step} divides")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
