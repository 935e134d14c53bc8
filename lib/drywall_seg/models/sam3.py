"""SAM 3 (https://arxiv.org/abs/2511.16719) as a zero-shot baseline, with Hugging Face's classes."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer, Sam3Model
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput
from transformers.utils import cached_file

from drywall_seg.models.base import Features, Segmenter
from drywall_seg.models.weights import SETTINGS, licence_explained
from drywall_seg.prompts import OWN_LABELS, PROMPTS
from drywall_seg.runs import read_json, write_json

# It is asked for short noun phrases; an instruction finds nothing.
PHRASES = {"crack": "crack", "taping_area": "drywall seam", "joint_line": "drywall seam"}
PHRASES |= {own.name: own.words[0] for own in OWN_LABELS}
ORDER_WORDS = (
    r"(?:please |can you )?(?:segment|find|show|mark|trace|detect|outline|highlight|select|locate) (?:the |a |an )?"
)
SCORE_CLIP = 1e-4
"""Probabilities are kept off 0 and 1 by this, so that logits stay finite."""


class Sam3Segmenter(Segmenter):
    """SAM 3 behind the interface: a pixel's probability is the best score of the instances whose mask holds it.

    So the raw mask at a threshold is the union of the instances with at least that score, and the score threshold is
    chosen on val as every model's threshold is. Nothing of it trains here.
    """

    size_step = 14

    def __init__(
        self,
        model: Sam3Model,
        tokenizer: Any,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        base: dict[str, Any] | None = None,
    ) -> None:
        """Takes the model, its tokenizer, the input's side in pixels, the normalisation, and what to load it from."""
        super().__init__()
        self.model, self.tokenizer, self.base = model, tokenizer, base
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.check_side(image_size)
        self.requires_grad_(False)

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S) to the feature pyramid and its position encodings."""
        self.check_side(*pixel_values.shape)
        encoded = self.model.get_vision_features(pixel_values=pixel_values)
        batch = len(pixel_values)
        positions = (p.expand(batch, *p.shape[1:]) for p in encoded.fpn_position_encoding)
        return (*encoded.fpn_hidden_states, *positions)

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds P sentences, as their noun phrases, to (P, tokens * (width + 1)): features and attention mask."""
        phrases = [noun_phrase(text) for text in prompts]
        tokens = self.tokenizer(
            phrases, padding="max_length", truncation=True, max_length=self._n_tokens, return_tensors="pt"
        ).to(self.device)
        answer = self.model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        features = answer.pooler_output  # (P, tokens, width)
        mask = tokens.attention_mask[..., None].to(features.dtype)
        return torch.cat([features, mask], dim=-1).flatten(1)

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes to logits (B, S, S) of the best score of the instances that hold each pixel."""
        packed = prompt_embeddings.view(len(prompt_embeddings), self._n_tokens, -1)
        half = len(features) // 2
        answer = self.model(
            vision_embeds=Sam3VisionEncoderOutput(
                fpn_hidden_states=features[:half], fpn_position_encoding=features[half:]
            ),
            text_embeds=BaseModelOutputWithPooling(pooler_output=packed[..., :-1]),
            attention_mask=(packed[..., -1] > 0.5).long(),
        )
        scores = answer.pred_logits.sigmoid() * answer.presence_logits.sigmoid()  # (B, instances)
        probs = union_of_instances(scores, answer.pred_masks, self.image_size)
        return torch.logit(probs, eps=SCORE_CLIP)

    @property
    def _n_tokens(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def prompt_encoder(self) -> list[nn.Module]:
        """The text encoder and its projection."""
        return [self.model.text_encoder, self.model.text_projection]

    def image_blocks(self) -> list[nn.Module]:
        """None that could be trained."""
        return []

    def parts(self) -> dict[str, list[nn.Module]]:
        """All of it is encoder: there is nothing to train."""
        return {"encoder": [self.model], "decoder": []}

    def save(self, folder: Path) -> None:
        """Writes where the weights come from, and none of them: they are under a licence of their own."""
        settings = {"architecture": "sam3", "image_size": self.image_size, "base": self.base}
        write_json(Path(folder) / SETTINGS, settings)


def load_sam3(name_or_dir: str, image_size: int | None = None, revision: str | None = None) -> Sam3Segmenter:
    """Loads SAM 3: a hub id, or a folder laid out as on the hub.

    Raises:
        OSError: If it cannot be found or downloaded; where its licence was not agreed to, the message says how.
        ValueError: If what is there is not a SAM 3.
    """
    name = str(Path(name_or_dir).resolve()) if Path(name_or_dir).is_dir() else str(name_or_dir)
    with licence_explained(name):
        model = Sam3Model.from_pretrained(name, revision=revision)
        tokenizer = CLIPTokenizer.from_pretrained(name, revision=revision)
        file = cached_file(
            name, "preprocessor_config.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
    settings = read_json(file) if file else {}
    size = settings.get("size", {}).get("height", model.config.vision_config.image_size)
    mean, std = (settings.get(key, (0.5, 0.5, 0.5)) for key in ("image_mean", "image_std"))
    return Sam3Segmenter(model.eval(), tokenizer, image_size or size, mean, std, {"name": name, "revision": revision})


def union_of_instances(scores: Tensor, masks: Tensor, size: int) -> Tensor:
    """Returns for each pixel the best score of the instances whose mask holds it, 0 where none does.

    Args:
        scores: (B, N), in [0, 1].
        masks: Logits (B, N, h, w); a mask holds the pixels whose resized probability is above 0.5.
        size: Side of the result.

    Returns:
        (B, size, size), in [0, 1].
    """
    probs = torch.zeros(len(scores), size, size, device=scores.device, dtype=torch.float32)
    for number in range(scores.shape[1]):  # one instance at a time: 200 of 1008 x 1008 would be 800 MB an image
        mask = F.interpolate(masks[:, number : number + 1].float().sigmoid(), (size, size), mode="bilinear")[:, 0] > 0.5
        probs = torch.maximum(probs, mask * scores[:, number, None, None].float())
    return probs


def noun_phrase(prompt: str) -> str:
    """Returns what SAM 3 is asked for in place of a sentence.

    >>> noun_phrase("segment taping area"), noun_phrase("Find the ladder?"), noun_phrase("wall crack")
    ('drywall seam', 'ladder', 'wall crack')
    """
    for label, sentences in PROMPTS.items():
        if prompt in sentences:
            return PHRASES[label]
    words = prompt.strip(" .?!").lower()
    return re.sub(f"^{ORDER_WORDS}", "", words) or words
