"""CLIPSeg for prediction: the same numbers in fewer steps, and what no sentence changes done with the encoder."""

import copy
import math
import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drywall_seg.models.base import Features, Segmenter

ACTIVATIONS = {"quick_gelu": ("swish", 1.702), "relu": ("relu", 1.0)}
"""By transformers' name: oneDNN's name of f, and s, where the activation of x is f(s x) / s."""


def can_pack() -> bool:
    """Says whether this processor, and this torch, have the operators: those that `torch.compile` calls on x86."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear:
    """Linear layers of one input as a single product, its weights in the order that oneDNN reads them in."""

    def __init__(self, *linears: nn.Linear, scale: float = 1.0, bias_scale: float = 1.0) -> None:
        """Copies weights and biases, each times its factor."""
        weight = torch.cat([linear.weight.detach() for linear in linears]) * scale
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = torch.cat([linear.bias.detach() for linear in linears]) * bias_scale

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """Returns the activation of the product."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "")

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Returns the residual plus the product of x."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")


class PackedLayer:
    """A transformer layer of CLIPSeg, whose products add bias and residual or apply the activation themselves."""

    def __init__(self, layer: nn.Module, norm_first: bool) -> None:
        """Copies the weights of a layer of the encoder (norm first) or of the decoder (norm last)."""
        attention, mlp = layer.self_attn, layer.mlp
        self.activation, scale = ACTIVATIONS[mlp.config.hidden_act]
        self.qkv = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = PackedLinear(attention.out_proj)
        self.widen = PackedLinear(mlp.fc1, scale=scale, bias_scale=scale)
        self.narrow = PackedLinear(mlp.fc2, scale=1 / scale)
        self.norms = [layer.layer_norm1, layer.layer_norm2]
        self.heads, self.norm_first = attention.num_heads, norm_first

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (B, T, D) to (B, T, D)."""
        first, second = self.norms
        if self.norm_first:
            x = self.out.add_to(x, self._attend(first(x)))
            return self.narrow.add_to(x, self.widen(second(x), self.activation))
        x = first(self.out.add_to(x, self._attend(x)))
        return second(self.narrow.add_to(x, self.widen(x, self.activation)))

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, D / heads)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class InferenceCLIPSeg(Segmenter):
    """A CLIPSegSegmenter for prediction alone; its features are what the decoder makes of the activations."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Shares the weights; packed ones are copies, made when a CPU first asks for them."""
        super().__init__()
        self.segmenter, self.model = segmenter, segmenter.model
        self.embed_prompts, self.prompt_encoder = segmenter.embed_prompts, segmenter.prompt_encoder
        self.parts, self.image_blocks = segmenter.parts, segmenter.image_blocks
        self.image_size, self.size_step = segmenter.image_size, segmenter.size_step
        self.mean, self.std, self.trained_on = segmenter.mean, segmenter.std, segmenter.trained_on
        self.decoder = copy.copy(self.model.decoder)  # the same weights without the step that the encoder does here
        reduced = nn.ModuleList(nn.Identity() for _ in self.decoder.reduces)
        self.decoder._modules = {**self.decoder._modules, "reduces": reduced}
        self._packed: tuple[list[PackedLayer], list[PackedLayer]] | None = None

    def _packed_layers(self) -> tuple[list[PackedLayer], list[PackedLayer]] | None:
        """Returns the encoder's and the decoder's; None off x86 CPUs, in an export, or for other activations."""
        encoder, decoder = self.model.clip.vision_model.encoder.layers, self.decoder.layers
        weight = encoder[0].mlp.fc1.weight
        known = {encoder[0].mlp.config.hidden_act, decoder[0].mlp.config.hidden_act} <= set(ACTIVATIONS)
        usable = can_pack() and (weight.device.type, weight.dtype) == ("cpu", torch.float32)
        if not (known and usable) or torch.compiler.is_compiling():
            return None
        if self._packed is None:
            self._packed = [PackedLayer(m, True) for m in encoder], [PackedLayer(m, False) for m in decoder]
        return self._packed

    @torch.no_grad()
    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S) to what the decoder adds up, (B, 1 + patches, 64) each."""
        self.check_side(*pixel_values.shape)
        if packed := self._packed_layers():
            vision, activations = self.model.clip.vision_model, []
            x = vision.pre_layrnorm(vision.embeddings(pixel_values, interpolate_pos_encoding=True))
            for number, layer in enumerate(packed[0]):
                x = layer(x)
                if number in self.model.extract_layers:
                    activations.append(x)
        else:
            activations = self.segmenter.encode_images(pixel_values)
        return tuple(reduce(x) for reduce, x in zip(self.model.decoder.reduces[::-1], activations, strict=True))

    @torch.no_grad()
    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes to logits (B, S, S)."""
        if not (packed := self._packed_layers()):
            return self.decoder(list(features), prompt_embeddings, return_dict=True).logits
        x: Tensor | float = 0.0
        for number, (feature, layer) in enumerate(zip(features[::-1], packed[1], strict=True)):
            x = feature + x
            if number == self.decoder.conditional_layer:
                scale, shift = self.decoder.film_mul(prompt_embeddings), self.decoder.film_add(prompt_embeddings)
                x = torch.addcmul(shift[:, None], scale[:, None], x)
            x = layer(x)
        side = math.isqrt(x.shape[1] - 1)
        maps = x[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # without the class token
        return self.decoder.transposed_convolution(maps).squeeze(1)
