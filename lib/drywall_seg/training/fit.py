"""Training a run: epochs, the best of them by val, and going on where one was stopped."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import gather_object

from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.data.manifest import Manifest
from drywall_seg.data.splits import photo_hash
from drywall_seg.evaluation.collect import collect_presence, score_validation, unseen_rows
from drywall_seg.evaluation.delivery import choose_delivery
from drywall_seg.evaluation.runtime import peak_memory
from drywall_seg.evaluation.thresholds import choose_presence_cut
from drywall_seg.inference.predict import THRESHOLDS_FILE, Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import Segmenter
from drywall_seg.models.weights import PHOTOGRAPHS
from drywall_seg.runs import CHECKPOINT, progress, read_json, whole_folder, write_csv, write_json
from drywall_seg.settings import THRESHOLD_RULES, RunConfig
from drywall_seg.training.loop import train_epoch
from drywall_seg.training.mining import add_hard_negatives, mine_hard_negatives
from drywall_seg.training.optimisation import averaged_weights
from drywall_seg.training.resume import FOLDER
from drywall_seg.training.state import Training, restore_training, save_training, start_accelerator, start_training

OnEpoch = Callable[[dict[str, Any], Predictor], None]
"""Called after each epoch with its row of the history, and the model as it was scored."""
DRAWING = "seed negative_share crop_min color_strength degrade_share joint_line_repeats paraphrases balance".split()
"""Settings of a run that `PromptedDataset` takes as they are."""


def fit(
    segmenter: Segmenter, manifest: Manifest, config: RunConfig, folder: Path, on_epoch: OnEpoch | None = None
) -> pd.DataFrame:
    """Trains a segmenter on the train part; its best epoch on val becomes `folder/checkpoint`.

    Best is the largest (mean IoU + mean Dice) / 2 over val's images, of the averaged weights where there are some.
    The segmenter ends with the last epoch's weights. The state after each epoch, and every `checkpoint_steps`, is kept
    in `folder/resume` until the end, and a training that was stopped goes on from it. On a CPU the same settings give
    the same weights to the bit, stopped or not. Beside the checkpoint, `history.csv` and `steps.csv` (the loss of each
    step) are written. `on_epoch` is called in the first process.

    Raises:
        FloatingPointError: If the loss is not finite.
        ValueError: If no row is in train.
    """
    torch.manual_seed(config.seed)
    accelerator = start_accelerator()
    segmenter.to(accelerator.device)
    if not config.epochs:  # a baseline, of which perhaps nothing can be trained
        if accelerator.is_main_process:
            _validate(segmenter, manifest, config, folder, -math.inf)
            write_csv(folder / "history.csv", pd.DataFrame(columns=["epoch"]))
            _choose_delivery(segmenter, manifest, config, folder)
        accelerator.wait_for_everyone()
        return pd.read_csv(folder / "history.csv")
    dataset = training_data(segmenter, manifest, config)
    if not len(dataset):
        raise ValueError(f"{manifest.folder / 'manifest.csv'}: no row is in train")
    training = start_training(segmenter, config, dataset, accelerator)
    with accelerator.main_process_first():  # which removes what is broken
        restore_training(training, folder)
    accelerator.wait_for_everyone()
    with progress(None, "training", "step") as bar:
        bar.reset(total=training.n_steps)
        bar.update(len(training.losses))
        while len(training.history) < config.epochs and not _has_lost_patience(training):
            row = _run_epoch(training, manifest, folder, bar)
            if accelerator.is_main_process:  # before the state: what comes after the last one is not done again
                write_csv(folder / "history.csv", pd.DataFrame(training.history))
                steps = range(1, len(training.losses) + 1)
                write_csv(folder / "steps.csv", pd.DataFrame({"step": steps, "loss": training.losses}))
            save_training(training, folder)
            if on_epoch and accelerator.is_main_process:
                with averaged_weights(segmenter, training.average):
                    on_epoch(row, Predictor(TorchBackend(segmenter)))
    if accelerator.is_main_process:
        _choose_delivery(segmenter, manifest, config, folder)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
    accelerator.wait_for_everyone()
    return pd.read_csv(folder / "history.csv")


def _run_epoch(training: Training, manifest: Manifest, folder: Path, bar: Any) -> dict[str, Any]:
    """Trains and scores the next epoch, and adds its row to the history."""
    config, segmenter, history = training.config, training.segmenter, training.history
    part = training.accelerator.process_index, training.accelerator.num_processes
    started, before = time.monotonic(), len(training.losses)
    training.dataset.epoch = len(history)
    begins = before == len(history) * training.steps_per_epoch
    if config.mine_every and history and len(history) % config.mine_every == 0 and begins:
        with averaged_weights(segmenter, training.average):
            found = mine_hard_negatives(Predictor(TorchBackend(segmenter)), training.dataset, part)
        if part[0] == 0:
            add_hard_negatives(folder, found)
    trained = train_epoch(training, folder, bar)
    seconds = time.monotonic() - started
    best = max((row["score"] for row in history), default=-math.inf)
    with averaged_weights(segmenter, training.average):
        scores, score, kept = _validate(segmenter, manifest, config, folder, best, part)
    done_before = before - training.dataset.epoch * training.steps_per_epoch  # by a session that was stopped
    n_images = len(training.dataset) - done_before * config.batch_size
    speed = {"images_per_second": round(n_images / seconds, 2), "peak_memory_gb": round(peak_memory() / 1e9, 2)}
    row = {"epoch": len(history) + 1, **trained, **scores, "score": score, "best": kept, **speed}
    history.append({**row, "seconds": round(time.monotonic() - started, 1)})
    return history[-1]


def _has_lost_patience(training: Training) -> bool:
    best = max((number for number, row in enumerate(training.history) if row["best"]), default=0)
    return 0 < training.config.patience <= len(training.history) - 1 - best


def training_data(segmenter: Segmenter, manifest: Manifest, config: RunConfig) -> PromptedDataset:
    """Returns the train part as the settings want it drawn."""
    size, views = config.train_size or segmenter.image_size, config.stored_views or 0
    options = {name: getattr(config, name) for name in DRAWING}
    return PromptedDataset(manifest, "train", size, segmenter.mean, segmenter.std, stored_views=views, **options)


def _validate(
    segmenter: Segmenter,
    manifest: Manifest,
    config: RunConfig,
    folder: Path,
    best: float,
    part: tuple[int, int] = (0, 1),
) -> tuple[dict[str, Any], float, bool]:
    """Scores val, and makes the checkpoint where the score is above the best so far; says whether it did."""
    predictor = Predictor(TorchBackend(segmenter))
    gather = gather_object if part[1] > 1 else list
    thresholds, summary = score_validation(predictor, manifest, config, part=part, gather=gather)
    overall = summary["overall"]  # None where val is empty: then the last epoch is as good as any
    means = summary["labels"] | ({"overall": overall} if overall else {})
    row = {f"val_{label}_{name}": values[name] for label, values in means.items() for name in ("mean_iou", "mean_dice")}
    score = (overall["mean_iou"] + overall["mean_dice"]) / 2 if overall else 0.0
    kept = score > best or not overall
    if kept and part[0] == 0:
        how = "given" if config.threshold is not None else f"on val: {config.threshold_rule}"
        if how.endswith(THRESHOLD_RULES[1]):
            how += f" of {config.false_alarm_budget:g}"
        trained = manifest.rows("train").photo_id.unique() if config.epochs else ()
        with whole_folder(folder / CHECKPOINT) as partial:
            segmenter.save(partial)
            write_json(partial / PHOTOGRAPHS, sorted(segmenter.trained_on | {photo_hash(name) for name in trained}))
            write_json(partial / THRESHOLDS_FILE, {"thresholds": thresholds, "chosen": how})
    return row, score, kept


def _choose_delivery(segmenter: Segmenter, manifest: Manifest, config: RunConfig, folder: Path) -> None:
    """Chooses the presence cut and post-processing of the best epoch on val; with them a training has ended."""
    rows, _ = unseen_rows(Predictor(TorchBackend(segmenter)), manifest, "val")
    predictor = Predictor.load(folder / CHECKPOINT)
    predictor.presence_cut = choose_presence_cut(*collect_presence(predictor, manifest, rows, config.seed))
    path = folder / CHECKPOINT / THRESHOLDS_FILE
    write_json(path, {**read_json(path), **choose_delivery(predictor, manifest, rows)})
