"""CLIPSeg (Lueddecke & Ecker 2022, https://arxiv.org/abs/2112.10003): any checkpoint, hub id or local folder."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    PreTrainedTokenizerBase,
)

from drywall_seg.models.base import Features, Segmenter
from drywall_seg.runs import read_json, whole_file, write_json

MAX_TOKENS = 77


class CLIPSegSegmenter(Segmenter):
    """Hugging Face's CLIPSeg with the vision layers cut off after the last one that its decoder reads."""

    def __init__(
        self,
        model: CLIPSegForImageSegmentation,
        tokenizer: PreTrainedTokenizerBase,
        image_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        base: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.base = model, tokenizer, base
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        vision = model.clip.vision_model.encoder
        vision.layers = vision.layers[: max(model.extract_layers) + 1]  # the rest feeds nothing that is used

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S) to the activations that the decoder reads, each (B, 1 + patches, 768)."""
        vision = self.model.clip.vision_model
        with torch.set_grad_enabled(torch.is_grad_enabled() and vision.pre_layrnorm.weight.requires_grad):
            states = vision(
                pixel_values=pixel_values,
                interpolate_pos_encoding=True,
                output_hidden_states=True,
                return_dict=True,
            ).hidden_states
        return tuple(states[layer + 1] for layer in self.model.extract_layers)  # states[0] is the embedding

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes to logits (B, S, S)."""
        return self.model.decoder(list(features), prompt_embeddings, return_dict=True).logits

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds P sentences to (P, 512).

        Not `get_conditional_embeddings`: that one never lets a gradient through.
        """
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        clip = self.model.clip
        pooled = clip.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, return_dict=True
        ).pooler_output
        return clip.text_projection(pooled)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The decoder (1.13 M parameters) and CLIP."""
        return {"encoder": [self.model.clip], "decoder": [self.model.decoder]}

    def _prompt_encoder_trains(self) -> bool:
        return self.model.clip.text_projection.weight.requires_grad

    def save(self, folder: Path) -> None:
        """Writes the decoder alone where CLIP was never trained and has a name to load it by; else everything."""
        whole = self.base is None or any(p.requires_grad for p in self.model.clip.parameters())
        module = self.model if whole else self.model.decoder
        with whole_file(folder / "model.safetensors") as partial:
            save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, partial)
        settings = {
            "architecture": "clipseg",
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
            "base": None if whole else self.base,
        }
        if whole:
            settings["config"] = self.model.config.to_diff_dict()
            self.tokenizer.save_pretrained(folder)
        write_json(folder / "segmenter.json", settings)


def load_clipseg(name_or_dir: str, image_size: int | None = None, revision: str | None = None) -> CLIPSegSegmenter:
    """Loads a released checkpoint: a hub id, or a folder laid out as on the hub.

    Raises:
        OSError: If it cannot be found or downloaded (as transformers says it).
    """
    # Its own class of weights is whatever the repository has: the released one is a pickle, which transformers
    # reads with weights_only; a safetensors copy is not certain to exist, so none is demanded.
    model = CLIPSegForImageSegmentation.from_pretrained(name_or_dir, revision=revision)
    tokenizer = AutoTokenizer.from_pretrained(name_or_dir, revision=revision)
    processor = AutoImageProcessor.from_pretrained(name_or_dir, revision=revision, use_fast=False)
    size = processor.size["height"] if "height" in processor.size else min(processor.size.values())
    base = {"name": name_or_dir, "revision": getattr(model.config, "_commit_hash", None) or revision}
    return CLIPSegSegmenter(
        model, tokenizer, image_size or size, processor.image_mean, processor.image_std, base
    )


def load_finetuned(folder: Path, image_size: int | None = None) -> CLIPSegSegmenter:
    """Reads what `CLIPSegSegmenter.save` wrote, over its base where only the decoder was written.

    Raises:
        ValueError: If the weights do not fit; the message names the file.
    """
    settings = read_json(folder / "segmenter.json")
    size = image_size or settings["image_size"]
    if settings["base"]:
        segmenter = load_clipseg(settings["base"]["name"], size, settings["base"]["revision"])
        module = segmenter.model.decoder
    else:
        model = CLIPSegForImageSegmentation(CLIPSegConfig.from_dict(settings["config"]))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        segmenter = CLIPSegSegmenter(model, tokenizer, size, settings["mean"], settings["std"])
        module = segmenter.model
    try:
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"{folder / 'model.safetensors'}: not weights of this CLIPSeg ({error})") from error
    segmenter.forget_prompts()
    return segmenter
