"""The compact model: a small convolutional encoder that a sentence steers; needs no GPU and no hub."""

import copy
import itertools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from drywall_seg.images import check_input
from drywall_seg.models.base import Features, Segmenter
from drywall_seg.models.weights import SETTINGS, WEIGHTS, read_settings, read_weights, write_weights
from drywall_seg.prompts import hash_text
from drywall_seg.runs import write_json

# (repeats, kernel, stride, expansion, channels), EfficientNet-Lite0: Tan & Le 2019 (https://arxiv.org/abs/1905.11946)
# without squeeze-and-excitation and with ReLU6.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
PYRAMID_STAGES = (1, 2, 4, 6)  # whose outputs are at 1/4, 1/8, 1/16 and 1/32 of the input
WIDTH = 96
BUCKETS, TEXT_WIDTH = 4096, 64


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and BatchNorm, padded as TensorFlow does, for which the public weights were trained."""
    total = kernel - stride  # of padding; the odd pixel goes to the lower right
    pad = (total // 2, total - total // 2) * 2
    padding = [nn.ZeroPad2d(pad)] if total % 2 else []
    conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if padding else total // 2, groups=groups, bias=False)
    return [*padding, conv, nn.BatchNorm2d(outputs, eps=1e-3)]


def _padded_alike(pad: nn.ZeroPad2d, conv: nn.Conv2d) -> nn.Conv2d:
    """Returns a convolution that pads all sides alike and gives what `conv` does behind `pad`: no padded copy."""
    before, after = pad.padding[:2]
    more = after - before  # rows and columns of zeros, for what is padded too much
    side = conv.kernel_size[0] + more
    alike = nn.Conv2d(conv.in_channels, conv.out_channels, side, conv.stride, after, groups=conv.groups)
    alike.weight = nn.Parameter(F.pad(conv.weight, (more, 0, more, 0)))
    alike.bias = conv.bias
    return alike


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        expand = [*_conv(inputs, hidden, 1), nn.ReLU6(inplace=True)] if expansion != 1 else []
        depthwise = [*_conv(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*expand, *depthwise, *_conv(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return x + self.layers(x) if self.residual else self.layers(x)


class Encoder(nn.Module):
    """EfficientNet-Lite0 without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6(inplace=True))
        stages, channels = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            shapes = [(channels, stride)] + [(outputs, 1)] * (repeats - 1)
            blocks = [InvertedResidual(inputs, outputs, kernel, step, expansion) for inputs, step in shapes]
            stages.append(nn.Sequential(*blocks))
            channels = outputs
        self.stages = nn.ModuleList(stages)
        self.outputs = nn.ModuleList(nn.Identity() for _ in PYRAMID_STAGES)

    def forward(self, x: Tensor) -> Features:
        """Maps (B, 3, S, S) to four maps, at 1/4 to 1/32 of S."""
        x, maps = self.stem(x), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in PYRAMID_STAGES:
                maps.append(self.outputs[len(maps)](x))
        return tuple(maps)


class TextEncoder(nn.Module):
    """Words and character n-grams hashed into an embedding bag, then a small MLP: takes any sentence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(BUCKETS, TEXT_WIDTH, mode="mean")
        self.mlp = nn.Sequential(nn.Linear(TEXT_WIDTH, 128), nn.ReLU(), nn.Linear(128, width))

    def forward(self, prompts: list[str]) -> Tensor:
        """Embeds P sentences to (P, width)."""
        hashes = [hash_text(prompt, BUCKETS) for prompt in prompts]
        device = self.bag.weight.device
        ids = torch.tensor([i for hashed in hashes for i in hashed], device=device)
        starts = torch.tensor([0, *map(len, hashes[:-1])], device=device).cumsum(0)
        return self.mlp(self.bag(ids, starts))


class Decoder(nn.Module):
    """Feature pyramid whose levels the sentence scales and shifts (FiLM, https://arxiv.org/abs/1709.07871)."""

    def __init__(self) -> None:
        super().__init__()
        channels = [STAGES[stage][4] for stage in PYRAMID_STAGES]
        self.laterals = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.film = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in channels)
        self.smooth = nn.ModuleList(
            nn.Sequential(*_conv(WIDTH, WIDTH, 3, groups=WIDTH), *_conv(WIDTH, WIDTH, 1), nn.ReLU(inplace=True))
            for _ in channels
        )
        self.head = nn.Sequential(
            *_conv(WIDTH, WIDTH, 3, groups=WIDTH), *_conv(WIDTH, WIDTH // 2, 1), nn.ReLU(inplace=True)
        )
        self.score = nn.Conv2d(WIDTH // 2, 1, 1)
        nn.init.constant_(self.score.bias, -2.0)  # targets are rare: starting at 12 % saves the first epoch

    def forward(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Maps the pyramid and embeddings (B, WIDTH) to logits (B, S, S)."""
        x = None
        for level in reversed(range(len(features))):
            lateral = self.laterals[level](features[level])
            scale, shift = self.film[level](prompt_embeddings)[..., None, None].chunk(2, dim=1)
            lateral = torch.addcmul(shift, lateral, 1 + scale)
            if x is not None:
                blocks = lateral.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # a view (B, WIDTH, H / 2, 2, W / 2, 2)
                blocks.add_(x[:, :, :, None, :, None])  # the nearest neighbour, enlarged in no memory of its own
            x = self.smooth[level](lateral)
        # Scoring and enlarging are both linear, so one channel is enlarged, not 48.
        logits = F.interpolate(self.score(self.head(x)), scale_factor=2, mode="bilinear", align_corners=False)
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        return logits[:, 0]  # (B, S, S)


class CompactSegmenter(Segmenter):
    """About 3.4 M parameters; every size that 32 divides."""

    size_step = 32
    half_predicts = False  # bfloat16 moved outlines (IoU .88 with the CPU's mask, H100) and saved no time
    # The public EfficientNet-Lite weights take (x - 127) / 128 of 8-bit values.
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3

    def __init__(self, image_size: int = 320) -> None:
        super().__init__()
        self.check_side(image_size)
        self.image_size = image_size
        self.encoder = Encoder()
        self.text = TextEncoder(WIDTH)
        self.decoder = Decoder()
        self.to(memory_format=torch.channels_last)  # a fifth faster to train on CPU

    def encode_images(self, pixel_values: Tensor) -> Features:
        """Encodes images (B, 3, S, S) to four maps, channels last in memory (faster on CPU and GPU)."""
        self.check_side(*pixel_values.shape)
        return self.encoder(pixel_values.contiguous(memory_format=torch.channels_last))

    def decode(self, features: Features, prompt_embeddings: Tensor) -> Tensor:
        """Decodes to logits (B, S, S)."""
        return self.decoder(features, prompt_embeddings)

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Embeds P sentences to (P, 96)."""
        return self.text(prompts)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The sentence encoder trains with the decoder: it starts from nothing, as that does."""
        return {"encoder": [self.encoder], "decoder": [self.text, self.decoder]}

    @torch.no_grad()
    def begin_words(self, new: list[str], known: list[str]) -> None:
        """Lets words begin as what the known ones are on average.

        It learned to find nothing for words that it does not know, so surely that no gradient leads out of it. What
        the known words are made of stays as it is.
        """
        hashed = [hash_text(word, BUCKETS) for word in known]
        average = torch.stack([self.text.bag.weight[pieces].mean(0) for pieces in hashed]).mean(0)
        pieces = {piece for word in new for piece in hash_text(word, BUCKETS)} - {p for ps in hashed for p in ps}
        self.text.bag.weight[sorted(pieces)] = average

    def image_blocks(self) -> list[nn.Module]:
        """The stem and the seven stages; the first two hold little but most of a training step's time."""
        return [self.encoder.stem, *self.encoder.stages]

    def prompt_encoder(self) -> list[nn.Module]:
        """The embedding bag and its MLP."""
        return [self.text]

    def for_inference(self) -> "CompactSegmenter":
        """Returns a copy that is faster and gives the same logits.

        Each BatchNorm is folded into its convolution, uneven padding into zeros of its weights, and what the decoder
        does to the features before a sentence has a part in it is done with the encoder, once for all sentences.
        """
        folded = copy.deepcopy(self).eval()
        for layers in (module for module in folded.modules() if isinstance(module, nn.Sequential)):
            for number, (conv, norm) in enumerate(itertools.pairwise(list(layers))):
                if isinstance(norm, nn.BatchNorm2d):
                    layers[number], layers[number + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            for number, (pad, conv) in enumerate(itertools.pairwise(list(layers))):
                if isinstance(pad, nn.ZeroPad2d):
                    layers[number], layers[number + 1] = nn.Identity(), _padded_alike(pad, conv)
        folded.encoder.outputs, folded.decoder.laterals = folded.decoder.laterals, folded.encoder.outputs
        return folded.requires_grad_(False).to(memory_format=torch.channels_last)

    def save(self, folder: Path) -> None:
        """Writes all weights."""
        folder = Path(folder)
        write_weights(self, folder / WEIGHTS)
        write_json(folder / SETTINGS, {"architecture": "compact", "image_size": self.image_size})

    @classmethod
    def load(cls, folder: Path, image_size: int | None = None) -> "CompactSegmenter":
        """Reads what `save` wrote.

        Raises:
            ValueError: If the weights are not this model's, or its size is none; the message names the file.
        """
        stored = read_settings(folder, "image_size")["image_size"]
        check_input(folder / SETTINGS, image_size=stored)
        segmenter = cls(image_size or stored)
        read_weights(segmenter, folder / WEIGHTS)
        return segmenter


def new_compact(image_size: int | None = None, seed: int = 42) -> CompactSegmenter:
    """Returns the model with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CompactSegmenter(image_size or 320)
