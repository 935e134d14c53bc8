"""Speed as ratios: one photo and two sentences, each way in turn, medians of several rounds in one run."""

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
from drywall_seg.data.manifest import Manifest, build_manifest
from drywall_seg.data.sample import write_sample
from drywall_seg.data.sample_pictures import draw_photograph
from drywall_seg.evaluation.collect import images_at_once, unseen_rows
from drywall_seg.evaluation.evaluate import evaluate
from drywall_seg.images import Letterbox, normalise
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.inference.torch_backend import default_device
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


def benchmark(repeats: int = 9, side: int = 640) -> pd.DataFrame:
    """Times the compact model against CLIPSeg's, from a photo in memory to two masks of its own size.

    CLIPSeg has random weights of rd64-refined's shapes, which cost what the released ones do. No mask of it is
    looked at. One round of each way comes first and is not counted.

    Args:
        repeats: Rounds, from 1 up.
        side: Of the photo, which is drawn, in pixels.

    Returns:
        A row for each way: median_s, its fastest and slowest round, and times_as_fast, the ratio of the first
        row's median to its own.
    """
    photo = np.asarray(draw_photograph(np.random.default_rng(42), "crack", (side, side), side / 320, False)[0])
    predictor = Predictor.load("compact")
    ways = {
        f"CLIPSeg at {CLIPSEG_SIZE}, the usual way": usual_clipseg(photo),
        f"compact at {predictor.backend.image_size}": lambda: [p.mask for p in predictor.predict(photo, SENTENCES)],
    }
    table = _time_in_turn(ways, repeats, f"{side} px photo, {len(SENTENCES)} sentences")
    return table.assign(times_as_fast=table.median_s.iloc[0] / table.median_s)


def benchmark_evaluation(manifest: Manifest, repeats: int = 3) -> pd.DataFrame:
    """Times the scoring of a test part with the compact model against predicting the same photos and nothing more.

    Both read the files, encode as many photos at once, and ask for each photo's own labels. Evaluation also reads
    ahead while the model works. The prompt tests have no part in it.

    Args:
        manifest: The data.
        repeats: Rounds, from 1 up; one more comes first and is not counted.

    Returns:
        A row for each way: median_s, its fastest and slowest round, and times_as_long, the ratio of its median to
        the first row's.
    """
    predictor = Predictor.load("compact")
    rows, _ = unseen_rows(predictor, manifest, "test")
    photos = [(manifest.image_file(group.iloc[0]), group.label) for _, group in rows.groupby("image_id")]
    asked = [(photo, [canonical_prompt(label) for label in labels]) for photo, labels in photos]
    size = images_at_once()
    batches = [tuple(zip(*asked[i : i + size], strict=True)) for i in range(0, len(asked), size)]
    ways = {
        "prediction": lambda: [len(predictor.predict_batch(files, prompts)) for files, prompts in batches],
        "evaluation": lambda: evaluate(predictor, manifest, "test"),
    }
    table = _time_in_turn(ways, repeats, f"{len(photos)} test photos, {len(rows)} masks")
    return table.assign(times_as_long=table.median_s / table.median_s.iloc[0])


def benchmark_training(repeats: int = 3, batch_size: int = 4) -> pd.DataFrame:
    """Times a step of the training of CLIPSeg of full size at 352 pixels, in the three ways there are.

    Each is a whole step of `training.loop`: encoder, sentences, decoder, loss, gradients, clipping, AdamW. Of the last
    the activations were stored before, and each step reads them; reading photos has no part in any.

    Args:
        repeats: Rounds, from 1 up; one more comes first and is not counted.
        batch_size: Images a step.

    Returns:
        A row for each way: median_s, its fastest and slowest round, times_as_fast as the first row, and trained,
        the number of weights that train.
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
            segmenter = CLIPSegSegmenter(random_clipseg(), _tokens, CLIPSEG_SIZE, MEAN, STD)
            data = training_data(segmenter.to(default_device()), manifest, config)
            training = start_training(segmenter, config, data, start_accelerator())
            set_training_mode(training)
            batch = default_collate([data[i] for i in range(batch_size)])
            ways[name] = partial(optimiser_step, training, batch, 1 / batch_size)
            trained.append(sum(p.numel() for p in segmenter.parameters() if p.requires_grad))
        table = _time_in_turn(ways, repeats, f"training step, {batch_size} images")
    return table.assign(times_as_fast=table.median_s.iloc[0] / table.median_s, trained=trained)


def random_clipseg() -> CLIPSegForImageSegmentation:
    """Returns CLIPSeg with rd64-refined's shapes and random weights, the same each time."""
    text = {"bos_token_id": 0, "eos_token_id": 2}
    config = CLIPSegConfig(
        text_config=text, vision_config={"patch_size": 16}, reduce_dim=64, use_complex_transposed_convolution=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        return CLIPSegForImageSegmentation(config)


def _tokens(prompts: list[str], **_: Any) -> BatchEncoding:
    """Stands in for CLIP's tokenizer: a sentence of three words between start and end; what it says costs nothing."""
    ids = torch.full((len(prompts), CLIPSEG_TOKENS), 49407)
    ids[:, :4] = torch.tensor([49406, 1, 2, 3])
    return BatchEncoding({"input_ids": ids, "attention_mask": (torch.arange(CLIPSEG_TOKENS) < 5).long().expand_as(ids)})


def usual_clipseg(photo: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Returns CLIPSeg as its documentation calls it: the photo repeated for each sentence, padded tokens, all layers.

    Args:
        photo: uint8 (H, W, 3).
    """
    device = default_device()
    model, tokens = random_clipseg().eval().to(device), _tokens(SENTENCES).to(device)

    def predict() -> list[np.ndarray]:
        box = Letterbox.fit(photo.shape[:2], CLIPSEG_SIZE)
        pixels = torch.from_numpy(normalise(box.pixels(photo), MEAN, STD)).to(device)
        with torch.no_grad():
            logits = model(
                pixel_values=pixels.expand(len(SENTENCES), -1, -1, -1),
                **tokens,
                interpolate_pos_encoding=True,
            ).logits
            probs = torch.sigmoid(logits).float().cpu().numpy()
        return [np.uint8(255) * (to_levels(box.restore(p)) >= 128) for p in probs]

    return predict


def _time_in_turn(ways: dict[str, Callable[[], object]], repeats: int, name: str) -> pd.DataFrame:
    """Returns median_s, fastest_s and slowest_s of each way, in an index of that name."""
    rounds = np.zeros((repeats + 1, len(ways)))
    for number in progress(range(repeats + 1), "benchmark", "round"):
        for column, way in enumerate(ways.values()):
            started = time.perf_counter()
            way()
            if torch.cuda.is_available():  # what a way has only asked for is not the next one's time
                torch.cuda.synchronize()
            rounds[number, column] = time.perf_counter() - started
    counted = rounds[1:]
    seconds = {"median_s": np.median(counted, axis=0), "fastest_s": counted.min(0), "slowest_s": counted.max(0)}
    return pd.DataFrame(seconds, index=pd.Index(list(ways), name=name))
