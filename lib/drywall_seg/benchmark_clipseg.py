"""CLIPSeg of full size: the usual way, one encode for two sentences, bare products, a training step; and rounds."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import default_collate
from transformers import BatchEncoding, CLIPSegConfig, CLIPSegForImageSegmentation

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.sample import write_sample
from drywall_seg.data.sample_pictures import draw_photograph
from drywall_seg.images import Letterbox, normalise
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.inference.torch_backend import TorchBackend, default_device, half_precision
from drywall_seg.models.clipseg import CLIPSegSegmenter
from drywall_seg.presets import CLIPSEG
from drywall_seg.prompts import canonical_prompt
from drywall_seg.runs import progress
from drywall_seg.training.fit import training_data
from drywall_seg.training.loop import optimiser_step, set_training_mode
from drywall_seg.training.state import start_accelerator, start_training

SENTENCES = [canonical_prompt("crack"), canonical_prompt("taping_area")]
CLIPSEG_SIZE, CLIPSEG_TOKENS = 352, 77
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def benchmark_prompts(repeats: int = 9, side: int = 640) -> pd.DataFrame:
    """Times one encode for two sentences against the usual way, and against the encoder's matrix products alone.

    The photo is drawn, `side` pixels wide and high.

    Returns:
        `summarise`'s table with times_as_fast as the first row, and of_products, the share of the bare products'
        speed: their time by the row's. Both are medians of each round's ratio.
    """
    photo = drawn_photo(side)
    segmenter = random_segmenter()
    predictor = Predictor(TorchBackend(segmenter, folded=True))
    box = Letterbox.fit(photo.shape[:2], CLIPSEG_SIZE)
    pixels = normalise(box.pixels(photo), MEAN, STD)[None]
    ways = {
        f"CLIPSeg at {CLIPSEG_SIZE}, the usual way": usual_clipseg(photo),
        "one encode for both sentences": lambda: [p.mask for p in predictor.predict(photo, SENTENCES)],
        "its encoder alone": lambda: predictor.backend.encode_images(pixels),
        "bare products of the encoder's shapes": bare_products(segmenter),
    }
    rounds = time_in_turn(ways, repeats)
    table = summarise(rounds, f"{side} px photo, {len(SENTENCES)} sentences")
    return table.assign(times_as_fast=ratios(rounds, 0), of_products=ratios(rounds, 3))


def benchmark_training(repeats: int = 3, batch_size: int = 4) -> pd.DataFrame:
    """Times a step of the training of CLIPSeg of full size at 352 pixels, in the three ways there are.

    Each is a whole step of `training.loop`: encoder, sentences, decoder, loss, gradients, clipping, AdamW. Of the last
    the activations were stored before, and each step reads them; reading photos has no part in any.

    Returns:
        `summarise`'s table with times_as_fast as the first row, and trained, the number of weights that train.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_manifest(write_sample(Path(folder) / "sample"), Path(folder) / "processed")
        settings = {"model": CLIPSEG, "image_size": CLIPSEG_SIZE, "batch_size": batch_size}
        ways, trained = {}, []
        for name, trainable, views in (
            ("all weights", "all", 0),
            ("decoder, frozen encoder run each step", "decoder", 0),
            ("decoder, activations stored", "decoder", 1),
        ):
            config = resolve_config(**settings, trainable=trainable, stored_views=views)
            segmenter = random_segmenter()
            data = training_data(segmenter, manifest, config)
            training = start_training(segmenter, config, data, start_accelerator())
            set_training_mode(training)
            batch = default_collate([data[i] for i in range(batch_size)])
            ways[name] = partial(optimiser_step, training, batch, 1 / batch_size)
            trained.append(sum(p.numel() for p in segmenter.parameters() if p.requires_grad))
        rounds = time_in_turn(ways, repeats)
    table = summarise(rounds, f"training step, {batch_size} images")
    return table.assign(times_as_fast=ratios(rounds, 0), trained=trained)


def bare_products(segmenter: CLIPSegSegmenter) -> Callable[[], None]:
    """Returns what multiplies matrices of the shapes that an encoded image needs, into memory that is there already.

    In the type that prediction uses: the patches, and in each layer that is run q, k, v and the projection after
    them, the scores and what they weigh for all heads, and the two of the MLP. No bias, no norm, no activation.
    The segmenter tells shapes and device; its weights are not used.
    """
    vision = segmenter.model.config.vision_config
    patches = (segmenter.image_size // vision.patch_size) ** 2
    tokens, width, hidden, heads = patches + 1, vision.hidden_size, vision.intermediate_size, vision.num_attention_heads
    values = vision.num_channels * vision.patch_size**2
    dtype = half_precision(segmenter.device) or torch.float32

    def new(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=segmenter.device, dtype=dtype) - 0.5

    cut, kernel = new(patches, values), new(width, values)
    layers = [
        ([new(width, width) for _ in range(4)], new(hidden, width), new(width, hidden))
        for _ in segmenter.image_blocks()
    ]
    x, q, k, v = new(tokens, width), *(new(heads, tokens, width // heads) for _ in range(3))
    embedded, projected, widened = new(patches, width), new(tokens, width), new(tokens, hidden)
    scores, mixed = new(heads, tokens, tokens), new(heads, tokens, width // heads)

    @torch.no_grad()
    def multiply() -> None:
        torch.mm(cut, kernel.t(), out=embedded)
        for projections, up, down in layers:
            for weight in projections:
                torch.mm(x, weight.t(), out=projected)
            torch.bmm(q, k.transpose(1, 2), out=scores)
            torch.bmm(scores, v, out=mixed)
            torch.mm(x, up.t(), out=widened)
            torch.mm(widened, down.t(), out=projected)

    return multiply


def usual_clipseg(photo: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Returns CLIPSeg as its documentation calls it: the photo repeated for each sentence, padded tokens, all layers.

    The photo is uint8 (H, W, 3).
    """
    device = default_device()
    model, tokens = random_clipseg().eval().to(device), some_tokens(SENTENCES).to(device)

    def predict() -> list[np.ndarray]:
        box = Letterbox.fit(photo.shape[:2], CLIPSEG_SIZE)
        pixels = torch.from_numpy(normalise(box.pixels(photo), MEAN, STD)).to(device)
        with torch.no_grad():
            logits = model(
                pixel_values=pixels.expand(len(SENTENCES), -1, -1, -1), **tokens, interpolate_pos_encoding=True
            ).logits
            probs = torch.sigmoid(logits).float().cpu().numpy()
        return [np.uint8(255) * (to_levels(box.restore(p)) >= 128) for p in probs]

    return predict


def random_clipseg() -> CLIPSegForImageSegmentation:
    """Returns CLIPSeg with rd64-refined's shapes and random weights, the same each time."""
    text = {"bos_token_id": 0, "eos_token_id": 2}
    config = CLIPSegConfig(
        text_config=text, vision_config={"patch_size": 16}, reduce_dim=64, use_complex_transposed_convolution=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        return CLIPSegForImageSegmentation(config)


def random_segmenter() -> CLIPSegSegmenter:
    """Returns this library's model of the same weights, on the GPU where there is one."""
    return CLIPSegSegmenter(random_clipseg(), some_tokens, CLIPSEG_SIZE, MEAN, STD).to(default_device())


def some_tokens(prompts: list[str], **_: Any) -> BatchEncoding:
    """Stands in for CLIP's tokenizer: a sentence of three words between start and end; what it says costs nothing."""
    ids = torch.full((len(prompts), CLIPSEG_TOKENS), 49407)
    ids[:, :4] = torch.tensor([49406, 1, 2, 3])
    return BatchEncoding({"input_ids": ids, "attention_mask": (torch.arange(CLIPSEG_TOKENS) < 5).long().expand_as(ids)})


def drawn_photo(side: int) -> np.ndarray:
    """Returns a photo of a crack as uint8 (side, side, 3), always the same."""
    return np.asarray(draw_photograph(np.random.default_rng(42), "crack", (side, side), side / 320, False)[0])


def time_in_turn(ways: dict[str, Callable[[], object]], repeats: int) -> pd.DataFrame:
    """Runs each way in turn, in one round more than `repeats` (from 1 up); the first is not counted.

    Returns:
        Seconds: a row for each round and a column for each way.
    """
    rounds = np.zeros((repeats + 1, len(ways)))
    for number in progress(range(repeats + 1), "benchmark", "round"):
        for column, way in enumerate(ways.values()):
            started = time.perf_counter()
            way()
            if torch.cuda.is_available():  # what a way has only asked for is not the next one's time
                torch.cuda.synchronize()
            rounds[number, column] = time.perf_counter() - started
    return pd.DataFrame(rounds[1:], columns=list(ways))


def summarise(rounds: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns median_s, fastest_s and slowest_s of each way, in an index of that name; `attrs` say how many rounds."""
    table = pd.DataFrame({"median_s": rounds.median(), "fastest_s": rounds.min(), "slowest_s": rounds.max()})
    table.attrs["rounds"] = len(rounds)
    return table.rename_axis(name)


def ratios(rounds: pd.DataFrame, of: int) -> pd.Series:
    """Returns, for each way, the median over the rounds of one way's time by its own in the same round.

    Not the ratio of two medians: a machine that slows down half-way slows all ways of a round alike.
    """
    return (1 / rounds.div(rounds.iloc[:, of], axis=0)).median()
