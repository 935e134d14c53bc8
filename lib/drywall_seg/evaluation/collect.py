"""Runs a model over rows of the manifest: what it says, once, for all that is counted from it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.data.manifest import Manifest
from drywall_seg.data.splits import known_photographs
from drywall_seg.evaluation.metrics import counts_at, score_histogram, score_rows, summarise
from drywall_seg.evaluation.thresholds import choose_thresholds, require_val
from drywall_seg.images import read_image, read_mask
from drywall_seg.inference.predict import Prediction, Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.inference.torch_backend import default_device
from drywall_seg.paraphrases import draw_absent
from drywall_seg.prompts import ABSENT_LABELS, canonical_prompt
from drywall_seg.runs import one_ahead, progress
from drywall_seg.settings import RunConfig

KEPT = ["image_id", "photo_id", "source", "label", "annotation_kind", "split", "width", "height"]
"""What a table of results keeps of a manifest's row."""


def images_at_once() -> int:
    """Returns how many images are encoded at once: 8 on a GPU, 2 on a CPU, whose caches hold no more."""
    return 8 if default_device() == "cuda" else 2


def predict_rows(
    predictor: Predictor, manifest: Manifest, rows: pd.DataFrame
) -> Iterator[tuple[Any, Prediction, np.ndarray]]:
    """Predicts manifest rows with their labels' canonical sentences; each image is read and encoded once.

    Yields:
        Row, prediction, and target uint8 (H, W), {0, 255}, by image_id.
    """
    images = [list(group.itertuples(index=False)) for _, group in rows.groupby("image_id", sort=True)]
    size = images_at_once()
    batches = [images[i : i + size] for i in range(0, len(images), size)]

    def read(batch: list[list[Any]]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        photos = [read_image(manifest.image_file(group[0])) for group in batch]
        return photos, [[read_mask(manifest.mask_file(row)) for row in group] for group in batch]

    for batch, (photos, targets) in progress(one_ahead(read, batches), "predicting", "batch", len(batches)):
        prompts = [[canonical_prompt(row.label) for row in group] for group in batch]
        predictions = predictor.predict_batch(photos, prompts)
        for group, answers, truths in zip(batch, predictions, targets, strict=True):
            yield from zip(group, answers, truths, strict=True)


def collect_histograms(predictor: Predictor, manifest: Manifest, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Runs the model once over rows; every threshold's figures of the raw mask follow from what it returns.

    Returns:
        The rows in the order of the histograms, and score histograms int64 (N, 2, 256).
    """
    kept, histograms = [], []
    for row, prediction, target in predict_rows(predictor, manifest, rows):
        kept.append({name: getattr(row, name) for name in KEPT})
        histograms.append(score_histogram(to_levels(prediction.probs), target))
    return pd.DataFrame(kept, columns=KEPT), np.array(histograms, np.int64).reshape(-1, 2, 256)


def unseen_rows(predictor: Predictor, manifest: Manifest, split: str) -> tuple[pd.DataFrame, int]:
    """Returns a split's rows without the photographs that the model was trained on, and how many those were.

    With the manifest's `score_known` none are left out.
    """
    rows = manifest.rows(split)
    known = known_photographs(rows, frozenset() if manifest.score_known else predictor.backend.trained_on)
    return rows[~known].reset_index(drop=True), int(rows.photo_id[known].nunique())


def sample_images(rows: pd.DataFrame, seed: int, n_images: int) -> pd.DataFrame:
    """Returns the rows of a seeded sample of images, at most n_images a label."""
    chosen = rows.groupby("label").image_id.apply(lambda ids: ids.sample(min(len(ids), n_images), random_state=seed))
    return rows[rows.image_id.isin(set(chosen))].reset_index(drop=True)


def collect_presence(
    predictor: Predictor, manifest: Manifest, rows: pd.DataFrame, seed: int, n_images: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Asks a sample of photos for what is there, for the labels that are known not to be, and for three other things.

    The sample of the rows of val, at most `n_images` a label, and the other things, of those that training draws from,
    follow from the seed.

    Returns:
        Presence of what is there, and of what is not.

    Raises:
        ValueError: If a row is not of val.
    """
    require_val(rows.split)
    present, absent = [], []
    chosen = sorted(set(sample_images(rows, seed, n_images).image_id))
    for number, image_id in enumerate(progress(chosen, "presence", "photo")):
        group = manifest.table[manifest.table.image_id == image_id]
        there = [canonical_prompt(label) for label in group.label[group.mask_area > 0]]
        others = set.intersection(*(set(ABSENT_LABELS[label]) for label in group.label))
        rng = np.random.default_rng((seed, number))
        missing = [canonical_prompt(label) for label in sorted(others)] + [draw_absent(rng) for _ in range(3)]
        answers = predictor.predict(manifest.image_file(next(group.itertuples())), there + missing)
        present += [answer.presence for answer in answers[: len(there)]]
        absent += [answer.presence for answer in answers[len(there) :]]
    return np.array(present), np.array(absent)


def score_validation(
    predictor: Predictor,
    manifest: Manifest,
    config: RunConfig,
    part: tuple[int, int] = (0, 1),
    gather: Callable[[list], list] = list,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Chooses thresholds on val by the configured rule, unless one is given, and scores the raw masks at them.

    Each process predicts its own images: `part` is its number and how many there are; `gather` joins a list of each
    process to the list of all.

    Returns:
        Thresholds by label, and the summary of `metrics.summarise`, of all images in every process.
    """
    rows, _ = unseen_rows(predictor, manifest, "val")
    mine = rows[pd.factorize(rows.image_id)[0] % part[1] == part[0]]
    parts = gather([collect_histograms(predictor, manifest, mine)])
    rows = pd.concat([table for table, _ in parts], ignore_index=True)
    order = rows.image_id.argsort(kind="stable")  # as one process collects them, so that sums are the same to the bit
    rows, histograms = rows.iloc[order].reset_index(drop=True), np.concatenate([h for _, h in parts])[order]
    thresholds = choose_thresholds(rows, histograms, config.threshold_rule, config.false_alarm_budget)
    if config.threshold is not None:
        thresholds = dict.fromkeys(thresholds, config.threshold)
    return thresholds, score_raw_masks(rows, histograms, thresholds)


def score_raw_masks(rows: pd.DataFrame, histograms: np.ndarray, thresholds: dict[str, float]) -> dict[str, Any]:
    """Scores the raw masks at a threshold for each label, from their histograms, as `metrics.summarise` does."""
    rows = rows.assign(threshold=rows.label.map(thresholds))
    counts = [counts_at(h, t) for h, t in zip(histograms, rows.threshold, strict=True)]
    rows[["tp", "fp", "fn"]] = np.array(counts, np.int64).reshape(-1, 3)
    return summarise(score_rows(rows))
