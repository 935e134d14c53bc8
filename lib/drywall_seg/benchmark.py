"""Speed as ratios: one photo and two sentences, each way in turn, medians of several rounds in one run."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from drywall_seg.data.manifest import Manifest
from drywall_seg.data.sample_pictures import draw_photograph
from drywall_seg.evaluation.collect import images_at_once, unseen_rows
from drywall_seg.evaluation.evaluate import evaluate
from drywall_seg.images import Letterbox, normalise
from drywall_seg.inference.predict import Predictor, to_levels
from drywall_seg.inference.torch_backend import default_device
from drywall_seg.prompts import canonical_prompt
from drywall_seg.runs import progress

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


def usual_clipseg(photo: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """Returns CLIPSeg as its documentation calls it: the photo repeated for each sentence, padded tokens, all layers.

    Args:
        photo: uint8 (H, W, 3).
    """
    text = {"bos_token_id": 0, "eos_token_id": 2}
    config = CLIPSegConfig(
        text_config=text, vision_config={"patch_size": 16}, reduce_dim=64, use_complex_transposed_convolution=True
    )
    device = default_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        model = CLIPSegForImageSegmentation(config).eval().to(device)
    # A sentence of three words between start and end; what it says costs nothing.
    ids = torch.full((len(SENTENCES), CLIPSEG_TOKENS), 49407, device=device)
    ids[:, :4] = torch.tensor([49406, 1, 2, 3], device=device)
    attention = (torch.arange(CLIPSEG_TOKENS, device=device) < 5).long().expand(len(SENTENCES), -1)

    def predict() -> list[np.ndarray]:
        box = Letterbox.fit(photo.shape[:2], CLIPSEG_SIZE)
        pixels = torch.from_numpy(normalise(box.pixels(photo), MEAN, STD)).to(device)
        with torch.no_grad():
            logits = model(
                pixel_values=pixels.expand(len(SENTENCES), -1, -1, -1),
                input_ids=ids,
                attention_mask=attention,
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
            rounds[number, column] = time.perf_counter() - started
    counted = rounds[1:]
    seconds = {"median_s": np.median(counted, axis=0), "fastest_s": counted.min(0), "slowest_s": counted.max(0)}
    return pd.DataFrame(seconds, index=pd.Index(list(ways), name=name))
