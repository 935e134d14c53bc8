"""CLIPSeg (Lueddecke & Ecker 2022, https://arxiv.org/abs/2112.10003), with Hugging Face's classes."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPSegForImageSegmentation, PreTrainedTokenizerBase

from drywall_seg.models.base import Features, Segmenter
from drywall_seg.models.clipseg_inference import InferenceCLIPSeg
from drywall_seg.models.weights import SETTINGS, WEIGHTS, hash_weights, write_weights
from drywall_seg.runs import write_json

INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""What a configuration says of its origin; it changes no weight's name or shape."""


class CLIPSegSegmenter(Segmenter):
    """Hugging Face's CLIPSeg with the vision layers cut off after the last one that its decoder reads.

    It starts with CLIP frozen; `trainable_parameters("all")` thaws it.
    """

    def __init__(
        self,
        model: CLIPSegForImageSegmentation,
        tokenizer: PreTrainedTokenizerBase,
        image_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        base: dict[str, Any] | None = None,
    ) -> None:
        """Takes `model` over, and changes it; `base` is the name and revision that CLIP's weights come from, if any.

        Raises:
            ValueError: If its configuration names layers that are not there, or the model cannot take `image_size`.
        """
        super().__init__()
        self.model, self.tokenizer, self.base = model, tokenizer, base
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.size_step = model.config.vision_config.patch_size
        self.check_side(image_size)
        vision, read, steered = model.clip.vision_model.encoder, model.extract_layers, model.config.conditional_layer
        if not set(read) <= set(range(len(vision.layers))) or steered not in range(len(read)):
            raise ValueError(f"extract_layers {read} or conditional_layer {steered} is not there")
        vision.layers = vision.layers[: max(read) + 1]  # the rest feeds nothing that is used
        self._clip_is_base = base is not None
        self.trainable_parameters("decoder")

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S) to the activations that the decoder reads, (B, 1 + patches, 768)."""
        self.check_side(*pixel_values.shape)
        # Not through Hugging Face's own forward, which never lets a gradient into CLIP.
        states = self.model.clip.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=True, output_hidden_states=True, return_dict=True
        ).hidden_states
        return tuple(states[layer + 1] for layer in self.model.extract_layers)  # states[0] is the embedding

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes to logits (B, S, S)."""
        return self.model.decoder(list(features), prompt_embeddings, return_dict=True).logits

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds P sentences to (P, 512).

        Not `get_conditional_embeddings`: that one never lets a gradient through.
        """
        clip = self.model.clip
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        answer = clip.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, return_dict=True)
        return clip.text_projection(answer.pooler_output)

    def prompt_encoder(self) -> list[nn.Module]:
        """CLIP's text model and its projection."""
        return [self.model.clip.text_model, self.model.clip.text_projection]

    def parts(self) -> dict[str, list[nn.Module]]:
        """The decoder (1.13 M parameters) and CLIP."""
        return {"encoder": [self.model.clip], "decoder": [self.model.decoder]}

    def architecture(self) -> str:
        """Layers that are read, heads, activation: as transformers states them."""
        return json.dumps(_without_origin(self.model.config.to_diff_dict()), sort_keys=True)

    def image_blocks(self) -> list[nn.Module]:
        """CLIP's vision layers, as far as they are run."""
        return list(self.model.clip.vision_model.encoder.layers)

    def trainable_parameters(self, part: str) -> list[nn.Parameter]:
        """As everywhere; but what no mask depends on stays frozen: DDP stops at weights without gradient."""
        super().trainable_parameters(part)
        clip = self.model.clip
        for unused in (clip.vision_model.post_layernorm, clip.visual_projection, clip.logit_scale):
            unused.requires_grad_(False)
        self._clip_is_base = self._clip_is_base and part == "decoder"
        return [p for p in self.parameters() if p.requires_grad]

    def load_state_dict(self, state_dict, *args, **kwargs):
        """Like any module's; notes whether CLIP is still the base's."""
        mine = {f"model.clip.{name}": tensor for name, tensor in self.model.clip.state_dict().items()}
        self._clip_is_base = self._clip_is_base and all(
            torch.equal(tensor, state_dict[name].to(tensor)) for name, tensor in mine.items() if name in state_dict
        )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def for_inference(self) -> Segmenter:
        """Returns what shares its weights and says the same in less time; its features are other ones."""
        return InferenceCLIPSeg(self)

    def save(self, folder: Path) -> None:
        """Writes the decoder alone, and what it belongs to, where CLIP is still a base's; else everything."""
        folder = Path(folder)
        thawed = any(p.requires_grad for p in self.model.clip.parameters())
        whole = thawed or not self._clip_is_base
        write_weights(self.model if whole else self.model.decoder, folder / WEIGHTS)
        settings = {
            "architecture": "clipseg",
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
            "base": None if whole else {**self.base, "weights": self.base_hash},
        }
        if whole:
            settings["config"] = _without_origin(self.model.config.to_diff_dict())
            self.tokenizer.save_pretrained(folder)
        write_json(folder / SETTINGS, settings)

    @cached_property
    def base_hash(self) -> str:
        """Stands for the weights of CLIP where they are the base's; half a gigabyte is hashed once."""
        return hash_weights(self.model.clip)


def _without_origin(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_origin(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in INCIDENTAL
    }
