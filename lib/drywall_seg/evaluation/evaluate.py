"""Scores of a run on test, of what inference delivers at the photos' own size: metrics and tables in its folder."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.config import has_checkpoint, model_of, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.data.splits import known_photographs
from drywall_seg.data.unpack import clear_left
from drywall_seg.evaluation.breakdowns import break_down
from drywall_seg.evaluation.collect import KEPT, predict_rows, sample_images, score_raw_masks, unseen_rows
from drywall_seg.evaluation.curves import calibration, expected_calibration_error, precision_recall, presence_roc
from drywall_seg.evaluation.gains import DELIVERED_SCORES, collect_delivered, gain_table, score_delivered
from drywall_seg.evaluation.intervals import interval_text
from drywall_seg.evaluation.metrics import score_histogram, score_rows, summarise
from drywall_seg.evaluation.robustness import ask_otherwise, prompt_warnings, resize_photos
from drywall_seg.evaluation.runtime import footprint, measure_runtime
from drywall_seg.evaluation.thin import CRACK_SCORES, LINE_SCORES, THIN_LABELS, cldice, crack_scores, joint_line_scores
from drywall_seg.evaluation.thresholds import sweep_table
from drywall_seg.images import read_mask
from drywall_seg.inference.photos import OutputNames
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.scores import to_levels
from drywall_seg.inference.torch_backend import device_name
from drywall_seg.prompts import LABELS, TASK_LABELS
from drywall_seg.runs import environment, read_json, single_writer, write_csv, write_json, write_mask
from drywall_seg.settings import RunConfig

TABLES = "tables"
Scored = tuple[pd.DataFrame, np.ndarray]
"""Rows and their score histograms."""


def evaluate(
    predictor: Predictor,
    manifest: Manifest,
    split: str,
    masks_folder: Path | None = None,
    n_images: int = 0,
    seed: int = 42,
) -> Scored:
    """Scores the delivered masks of a split, one row per (image, label), without photographs that the model knows.

    Args:
        predictor: With the thresholds to use.
        manifest: The data.
        split: val or test.
        masks_folder: Where to write the masks; None to keep none.
        n_images: Of the task's labels, a sample with as many of each; 0 for all rows.
        seed: Of the sample.

    Returns:
        A table with the manifest's columns `collect.KEPT`, prompt, mask_file (its name in masks_folder, or empty),
        `gains.DELIVERED_SCORES`, iou and dice; cldice for `thin.THIN_LABELS`, `thin.CRACK_SCORES` for cracks, and
        `thin.LINE_SCORES` for joint lines and taping areas, of the mask's centre line against the `joint_line` truth.
        NaN where a score is none of the row's.
        And the score histograms of its rows, int64 (N, 2, 256). No rows where the split has none.
    """
    results, histograms = [], []
    names = OutputNames()
    rows, _ = unseen_rows(predictor, manifest, split)
    lines = {row.image_id: manifest.mask_file(row) for row in rows[rows.label == "joint_line"].itertuples()}
    if n_images:
        rows = sample_images(rows[rows.label.isin(TASK_LABELS)], seed, n_images // len(TASK_LABELS))
    for row, prediction, target in predict_rows(predictor, manifest, rows):
        histograms.append(score_histogram(to_levels(prediction.probs), target))
        result = {name: getattr(row, name) for name in KEPT} | {"prompt": prediction.prompt, "mask_file": ""}
        result |= score_delivered(row.label, prediction, target)
        if row.label in THIN_LABELS:
            result["cldice"] = cldice(prediction.mask, target)
        if row.label == "crack":
            result |= crack_scores(prediction.mask, target)
        elif row.image_id in lines:
            result |= joint_line_scores(prediction.mask, read_mask(lines[row.image_id]))
        if masks_folder is not None:
            result["mask_file"] = names.mask_name(row.image_id, Path(row.image_path).stem, prediction.prompt)
            write_mask(masks_folder / result["mask_file"], prediction.mask)
        results.append(result)
    columns = [*KEPT, "prompt", "mask_file", *DELIVERED_SCORES, "cldice"]
    table = score_rows(pd.DataFrame(results, columns=[*columns, *CRACK_SCORES, *LINE_SCORES]))
    return table, np.array(histograms, np.int64).reshape(-1, 2, 256)


def run_predictor(config: RunConfig) -> Predictor:
    """Loads what a run is scored with: its checkpoint, else the configured model."""
    return Predictor.load(model_of(config), None if has_checkpoint(config) else config.image_size)


def evaluate_run(config: RunConfig, manifest: Manifest) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Scores a run on test and writes `metrics.json`, `per_image.csv`, `masks/` and `tables/` into its folder.

    Thresholds and post-processing are those that were chosen on val before; test chooses nothing. The sweep over test
    is there to show how much thresholds matter.

    Returns:
        The metrics and the tables, as `read_results` reads them.

    Raises:
        ValueError: If another process is training or scoring the run.
    """
    folder = run_folder_of(config)
    with single_writer(folder):
        for part in ("masks", TABLES):
            clear_left(folder / part)
        _evaluate_run(config, manifest, folder)
    return read_results(folder)


def _evaluate_run(config: RunConfig, manifest: Manifest, folder: Path) -> None:
    predictor = run_predictor(config)
    if config.threshold is not None:
        predictor.thresholds, predictor.chosen = dict.fromkeys(LABELS, config.threshold), "given"
    seconds: dict[str, float] = {}
    masks, size = folder / "masks", config.test_images
    test = _timed(seconds, "scoring", evaluate, predictor, manifest, "test", masks, size, config.seed)
    per_image = test[0]
    val = _timed(seconds, "val", collect_delivered, predictor, manifest, unseen_rows(predictor, manifest, "val")[0])
    for mask in set(masks.glob("*.png")) - {masks / name for name in per_image.mask_file}:
        mask.unlink()  # of an earlier evaluation
    tables = _tables(predictor, manifest, test, val, seconds, config.seed)
    asked = tables["questions"]
    there, missing = asked.asked.isin(["canonical", "paraphrase"]), asked.asked.isin(["other_label", "absent"])
    tables["presence_roc"], area = presence_roc(asked.presence[there].to_numpy(), asked.presence[missing].to_numpy())
    summary = summarise(per_image)
    _add_scores(summary, tables, known_photographs(per_image, predictor.backend.trained_on), per_image.label)
    part = f"a sample of {size} images of the test part" if size else "test part"
    metrics = {
        "model": config.model,
        "split": f"{part} of the {config.split!r} split, seed {config.seed}",
        "thresholds_chosen": predictor.chosen,
        "n_photographs_left_out": unseen_rows(predictor, manifest, "test")[1],
        "presence_cut": predictor.presence_cut,
        "presence_roc_auc": area,
        "scored": "delivered masks at the photos' own size; means are over images",
        "warnings": prompt_warnings(asked),
        **summary,
        "val": {"scored": "raw masks", **score_raw_masks(*val, predictor.thresholds)},
        "footprint": footprint(predictor, folder),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    if not has_checkpoint(config):  # a baseline that was never trained
        write_json(folder / "config.json", config.to_dict())
        write_json(folder / "environment.json", environment(device_name(), manifest.info["fingerprint"]))
    for name, table in tables.items():
        write_csv(folder / TABLES / f"{name}.csv", table)
    write_csv(folder / "per_image.csv", per_image)
    write_json(folder / "metrics.json", metrics)


def _add_scores(summary: dict[str, Any], tables: dict[str, pd.DataFrame], known: pd.Series, labels: pd.Series) -> None:
    """Adds what is not counted in pixels: calibration, wrong prompts, share of images of a known photograph."""
    errors = expected_calibration_error(tables["calibration"])
    wrong = tables["questions"].query("asked == 'other_label'")
    areas, shares = wrong.groupby("photo_label").area.mean(), known.groupby(labels).mean()
    for label, values in summary["labels"].items():
        values["share_trained_on"] = float(shares[label])
        values["expected_calibration_error"] = errors[label]
        values["wrong_prompt_area"] = float(areas[label]) if label in areas else None
    if summary["overall"]:
        summary["overall"]["wrong_prompt_area"] = float(wrong.area.mean()) if len(wrong) else None


def _tables(
    predictor: Predictor, manifest: Manifest, test: Scored, val: Scored, seconds: dict[str, float], seed: int
) -> dict[str, pd.DataFrame]:
    """Makes the tables beside per_image; notes in `seconds` how long each pass over the photos took."""
    sweeps = [sweep_table(*scored).assign(split=split) for split, scored in (("val", val), ("test", test))]
    paths = [manifest.image_file(row) for row in manifest.rows("test").drop_duplicates("image_id").itertuples()]
    return {
        "sweep": pd.concat([table for table in sweeps if len(table)] or sweeps[:1], ignore_index=True),
        "precision_recall": precision_recall(*test),
        "calibration": calibration(*test),
        "breakdowns": break_down(test[0]),
        "postprocessing": gain_table(predictor, {"test": test, "val": val}),
        "questions": _timed(seconds, "prompt tests", ask_otherwise, predictor, manifest, "test", seed),
        "sizes": _timed(seconds, "other sizes", resize_photos, predictor, manifest, "val"),
        "runtime": _timed(seconds, "runtime", measure_runtime, predictor, paths),
    }


def _timed(seconds: dict[str, float], name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    started = time.perf_counter()
    result = function(*arguments)
    seconds[name] = time.perf_counter() - started
    return result


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Reads the metrics and tables of an evaluated run, per_image among them.

    Raises:
        FileNotFoundError: If the run was not evaluated.
    """
    if not (folder / "metrics.json").is_file():
        raise FileNotFoundError(f"{folder / 'metrics.json'}: not there; run 03_evaluate with this run_name first")
    texts = {"image_id": str, "photo_id": str, "value": str}
    numbers = dict.fromkeys(("width", "height", "tp", "fp", "fn"), int) | {"iou": float, "dice": float}
    exact = {"float_precision": "round_trip"}  # pandas 2, which Colab has, else reads a last digit otherwise
    tables = {path.stem: pd.read_csv(path, dtype=texts, **exact) for path in sorted((folder / TABLES).glob("*.csv"))}
    tables["questions"]["label"] = tables["questions"].label.fillna("")
    tables["per_image"] = pd.read_csv(folder / "per_image.csv", dtype=texts | numbers, **exact)  # it may have no rows
    return read_json(folder / "metrics.json"), tables


def metrics_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Lays out `evaluate_run`'s metrics as a table: one row per label and one overall, none for nothing."""
    rows = {**metrics["labels"], "overall": metrics["overall"]}
    table = pd.json_normalize([{"label": label, **row} for label, row in rows.items() if row])
    if table.empty:
        return pd.DataFrame(columns=["label"])
    for name in table.columns[table.columns.str.startswith("interval_95.")]:
        table[name] = [interval_text(bounds if isinstance(bounds, list) else None) for bounds in table[name]]
    return table.round(4)
