"""Every ratio of this project: each beside its usual way in the same run, as one Markdown text."""

import os
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import default_collate

from drywall_seg.benchmark_clipseg import (
    CLIPSEG_SIZE,
    SENTENCES,
    benchmark_prompts,
    drawn_photo,
    random_segmenter,
    ratios,
    summarise,
    time_in_turn,
    usual_clipseg,
)
from drywall_seg.benchmark_large import benchmark_large, benchmark_memory
from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import Manifest, build_manifest, prepare
from drywall_seg.data.sample import write_sample
from drywall_seg.evaluation.collect import images_at_once, unseen_rows
from drywall_seg.evaluation.evaluate import evaluate
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.torch_backend import device_name
from drywall_seg.presets import CLIPSEG
from drywall_seg.prompts import canonical_prompt
from drywall_seg.training.fit import training_data
from drywall_seg.training.loop import optimiser_step, set_training_mode
from drywall_seg.training.state import start_accelerator, start_training


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
