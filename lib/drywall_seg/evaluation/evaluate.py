"""Scores what inference delivers, at the photos' own size."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.config import RunConfig, has_checkpoint, model_of, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.data.splits import known_photographs
from drywall_seg.evaluation.metrics import counts_at, mask_counts, score_histogram, score_rows, summarise
from drywall_seg.evaluation.thin import centre_line_counts, line_scores
from drywall_seg.evaluation.thresholds import choose_thresholds
from drywall_seg.images import read_image, read_mask
from drywall_seg.inference.files import OutputNames
from drywall_seg.inference.predict import Prediction, Predictor, to_levels
from drywall_seg.inference.torch_backend import device_name
from drywall_seg.paraphrases import draw_absent
from drywall_seg.prompts import ABSENT_LABELS, canonical_prompt
from drywall_seg.runs import environment, progress, write_csv, write_json, write_mask

KEPT = ["image_id", "photo_id", "source", "label", "annotation_kind"]


def predict_rows(
    predictor: Predictor,
    manifest: Manifest,
    rows: pd.DataFrame,
    batch_size: int = 8,
    threshold: float | None = None,
) -> Iterator[tuple[Any, Prediction, np.ndarray]]:
    """Predicts manifest rows with their labels' canonical sentences; each image is read and encoded once.

    Yields:
        Row, prediction, and target uint8 (H, W), {0, 255}.
    """
    images = [list(group.itertuples(index=False)) for _, group in rows.groupby("image_id", sort=True)]
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]

    def read(batch: list[list[Any]]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        photos = [read_image(manifest.image_file(group[0])) for group in batch]
        return photos, [[read_mask(manifest.mask_file(row)) for row in group] for group in batch]

    with ThreadPoolExecutor(1) as reader:  # reads one batch ahead
        ahead = reader.submit(read, batches[0]) if batches else None
        for number, batch in enumerate(progress(batches, "predicting", "batch")):
            photos, targets = ahead.result()
            if number + 1 < len(batches):
                ahead = reader.submit(read, batches[number + 1])
            prompts = [[canonical_prompt(row.label) for row in group] for group in batch]
            predictions = predictor.predict_batch(photos, prompts, threshold)
            for group, answers, truths in zip(batch, predictions, targets, strict=True):
                yield from zip(group, answers, truths, strict=True)


def collect_histograms(
    predictor: Predictor, manifest: Manifest, rows: pd.DataFrame, batch_size: int = 8
) -> tuple[pd.DataFrame, np.ndarray]:
    """Runs the model once over rows; every threshold's figures of the raw mask follow from what it returns.

    Returns:
        The rows in the order of the histograms, and score histograms int64 (N, 2, 256).
    """
    kept, histograms = [], []
    for row, prediction, target in predict_rows(predictor, manifest, rows, batch_size):
        kept.append({name: getattr(row, name) for name in KEPT})
        histograms.append(score_histogram(to_levels(prediction.probs), target))
    return pd.DataFrame(kept, columns=KEPT), np.array(histograms, np.int64).reshape(-1, 2, 256)


def unseen_rows(predictor: Predictor, manifest: Manifest, split: str) -> tuple[pd.DataFrame, int]:
    """Returns a split's rows without the photographs that the model was trained on, and how many those were."""
    rows = manifest.rows(split)
    known = known_photographs(rows, predictor.backend.trained_on)
    return rows[~known].reset_index(drop=True), int(rows.photo_id[known].nunique())


def collect_presence(
    predictor: Predictor, manifest: Manifest, rows: pd.DataFrame, seed: int, n_images: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Asks a sample of photos for what is there, for the labels that are known not to be, and for three other things.

    Args:
        predictor: The model.
        manifest: The data.
        rows: Those to sample from.
        seed: Of the sample and of the other things, which are those that training draws from.
        n_images: At most, a label.

    Returns:
        Presence of what is there, and of what is not.
    """
    present, absent = [], []
    chosen = rows.groupby("label").image_id.apply(lambda ids: ids.sample(min(len(ids), n_images), random_state=seed))
    for number, image_id in enumerate(progress(sorted(set(chosen)), "presence", "photo")):
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
    predictor: Predictor, manifest: Manifest, batch_size: int = 8, threshold: float | None = None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Chooses thresholds on val, unless one is given, and scores the raw masks at them.

    Returns:
        Thresholds by label, and the summary of `metrics.summarise`.
    """
    rows, histograms = collect_histograms(predictor, manifest, unseen_rows(predictor, manifest, "val")[0], batch_size)
    thresholds = choose_thresholds(rows, histograms)
    if threshold is not None:
        thresholds = dict.fromkeys(thresholds, threshold)
    rows["threshold"] = rows.label.map(thresholds)
    counts = [counts_at(h, t) for h, t in zip(histograms, rows.threshold, strict=True)]
    rows[["tp", "fp", "fn"]] = np.array(counts, np.int64).reshape(-1, 3)
    return thresholds, summarise(score_rows(rows))


def evaluate(
    predictor: Predictor,
    manifest: Manifest,
    split: str,
    masks_folder: Path | None = None,
    batch_size: int = 8,
    threshold: float | None = None,
) -> pd.DataFrame:
    """Scores the delivered masks of a split, one row per (image, label), without photographs that the model knows.

    Args:
        predictor: With the thresholds to use.
        manifest: The data.
        split: val or test.
        masks_folder: Where to write the masks; None to keep none.
        batch_size: Images encoded at once.
        threshold: For all labels, in place of the predictor's.

    Returns:
        Columns image_id, photo_id, source, label, annotation_kind, prompt, threshold, presence, tp, fp, fn,
        mask_file (its name in masks_folder, or empty), line_precision, line_recall, line_f1 (of the centre lines
        at 1 % of the longer side; joint_line only, else NaN), iou, dice. No rows where the split has none.
    """
    results = []
    names = OutputNames()
    rows, _ = unseen_rows(predictor, manifest, split)
    for row, prediction, target in predict_rows(predictor, manifest, rows, batch_size, threshold):
        tp, fp, fn = mask_counts(prediction.mask, target)
        result = {name: getattr(row, name) for name in KEPT}
        result |= {
            "prompt": prediction.prompt,
            "threshold": prediction.threshold,
            "presence": prediction.presence,
        }
        result |= {"tp": tp, "fp": fp, "fn": fn, "mask_file": ""}
        if row.label == "joint_line":
            result |= line_scores(centre_line_counts(prediction.mask, target))
        if masks_folder is not None:
            result["mask_file"] = names.mask_name(row.image_id, Path(row.image_path).stem, prediction.prompt)
            write_mask(masks_folder / result["mask_file"], prediction.mask)
        results.append(result)
    columns = [*KEPT, "prompt", "threshold", "presence", "tp", "fp", "fn", "mask_file"]
    columns += ["line_precision", "line_recall", "line_f1"]
    return score_rows(pd.DataFrame(results, columns=columns))


def run_predictor(config: RunConfig) -> Predictor:
    """Loads what a run is scored with: its checkpoint, else the configured model."""
    return Predictor.load(model_of(config), None if has_checkpoint(config) else config.image_size)


def evaluate_run(config: RunConfig, manifest: Manifest) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores a run on test and writes `metrics.json`, `per_image.csv` and `masks/` into its folder.

    Returns:
        The metrics and the table of images, as written.
    """
    folder = run_folder_of(config)
    predictor = run_predictor(config)
    per_image = evaluate(predictor, manifest, "test", folder / "masks", threshold=config.threshold)
    for mask in set((folder / "masks").glob("*.png")) - {folder / "masks" / name for name in per_image.mask_file}:
        mask.unlink()  # of an earlier evaluation
    metrics = {
        "model": config.model,
        "split": f"test part of the {config.split!r} split, seed {config.seed}",
        "n_photographs_left_out": unseen_rows(predictor, manifest, "test")[1],
        "presence_cut": predictor.presence_cut,
        "scored": "delivered masks at the photos' own size; means are over images",
        **summarise(per_image),
    }
    write_csv(folder / "per_image.csv", per_image)
    write_json(folder / "metrics.json", metrics)
    if not (folder / "config.json").is_file():  # a baseline that was never trained
        write_json(folder / "config.json", config.to_dict())
        write_json(folder / "environment.json", environment(device_name(), manifest.info["fingerprint"]))
    return metrics, per_image


def metrics_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Lays out `evaluate_run`'s metrics as a table: one row per label and one overall."""
    rows = {**metrics["labels"], "overall": metrics["overall"]}
    table = pd.json_normalize([{"label": label, **row} for label, row in rows.items() if row])
    for name in table.columns[table.columns.str.startswith("interval_95.")]:
        table[name] = [
            " to ".join(f"{v:.3f}" for v in bounds) if isinstance(bounds, list) else "" for bounds in table[name]
        ]
    return table.round(4)
