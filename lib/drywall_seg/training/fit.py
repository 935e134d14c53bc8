"""The training loop: AdamW, warm-up and cosine, clipping, half precision, the best epoch by val."""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from drywall_seg.config import THRESHOLD_RULES, RunConfig, resolve_model, run_folder_of
from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.data.manifest import Manifest
from drywall_seg.data.splits import photo_hash
from drywall_seg.evaluation.collect import collect_presence, score_validation, unseen_rows
from drywall_seg.evaluation.thresholds import choose_presence_cut
from drywall_seg.inference.predict import THRESHOLDS_FILE, Predictor
from drywall_seg.inference.torch_backend import TorchBackend, default_device, device_name, half_precision
from drywall_seg.models import Segmenter, load_segmenter
from drywall_seg.models.imagenet import imagenet_compact
from drywall_seg.models.weights import PHOTOGRAPHS
from drywall_seg.runs import CHECKPOINT, environment, progress, read_json, whole_folder, write_csv, write_json
from drywall_seg.training.losses import LOSS_OPTIONS, segmentation_loss
from drywall_seg.training.optimisation import ema, learning_rate_factor, parameter_groups
from drywall_seg.training.resume import FOLDER, load_state, save_state

OnEpoch = Callable[[dict[str, Any]], None]


def train_run(config: RunConfig, manifest: Manifest, on_epoch: OnEpoch | None = None) -> pd.DataFrame:
    """Trains a run, goes on where it was stopped, or does nothing where it is finished; returns its history.

    Writes `config.json`, `environment.json`, `history.csv` and `checkpoint/` into the run's folder. With 0 epochs
    the loaded model becomes the checkpoint, and only thresholds are chosen.

    Raises:
        ValueError: If the run's folder holds a run of other settings or data; a free name is proposed.
    """
    folder = run_folder_of(config)
    about = environment(device_name(), manifest.info["fingerprint"])
    begun = (folder / CHECKPOINT, folder / FOLDER, folder / "history.csv")
    if (folder / "config.json").is_file() and any(path.exists() for path in begun):
        _check_same_run(folder, config, about["data_fingerprint"])
        if _is_finished(folder, config.epochs):
            return read_history(folder)
    if config.start == "imagenet":
        segmenter = imagenet_compact(config.image_size, config.seed)
    else:
        segmenter = load_segmenter(resolve_model(config.model), config.image_size)
    write_json(folder / "environment.json", about)
    write_json(folder / "config.json", config.to_dict())
    return fit(segmenter, manifest, config, folder, on_epoch)


def fit(
    segmenter: Segmenter,
    manifest: Manifest,
    config: RunConfig,
    folder: Path,
    on_epoch: OnEpoch | None = None,
) -> pd.DataFrame:
    """Trains a segmenter on the train part; its best epoch on val becomes `folder/checkpoint`.

    Best is the largest (mean IoU + mean Dice) / 2 over val's images, of the averaged weights where there are some.
    The segmenter ends with the last epoch's weights. The state after each epoch is kept in `folder/resume` until the
    end, and a training that was stopped goes on from it. On a CPU the same settings give the same weights to the bit,
    stopped or not.

    Args:
        segmenter: Changed in place.
        manifest: The data.
        config: The settings.
        folder: Where the checkpoint and `history.csv` go.
        on_epoch: Called with each epoch's row of the history.

    Raises:
        FloatingPointError: If the loss is not finite.
        ValueError: If no row is in train.
    """
    torch.manual_seed(config.seed)
    device = torch.device(default_device())
    segmenter.to(device)
    if not config.epochs:  # a baseline, of which perhaps nothing can be trained
        _validate(segmenter, manifest, config, folder, -math.inf)
        write_csv(folder / "history.csv", pd.DataFrame(columns=["epoch"]))
        _store_presence_cut(segmenter, manifest, config, folder)
        return read_history(folder)
    optimizer = torch.optim.AdamW(parameter_groups(segmenter, config), weight_decay=config.weight_decay)
    dataset = _training_data(segmenter, manifest, config)
    if not len(dataset):
        raise ValueError(f"{manifest.folder / 'manifest.csv'}: no row is in train")
    n_steps = config.epochs * math.ceil(len(dataset) / config.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(n_steps, config.warmup_share))
    scaler = torch.amp.GradScaler(device.type, enabled=half_precision(device) is torch.float16)
    averaged = AveragedModel(segmenter, avg_fn=ema(config.ema_decay), use_buffers=True) if config.ema_decay else None
    modules = {"segmenter": segmenter} | ({"averaged": averaged} if averaged else {})
    history: list[dict[str, Any]] = []
    if state := load_state(folder, modules, optimizer):
        history = state["history"]
        vars(scheduler).update(state["scheduler"])
        scaler.load_state_dict(state["scaler"])
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
    scored = averaged.module if averaged else segmenter
    with progress(None, "training", "step") as bar:
        bar.reset(total=n_steps)
        bar.update(len(history) * n_steps // config.epochs)
        for epoch in range(len(history), config.epochs):
            started = time.monotonic()
            dataset.epoch = epoch
            loss = _train_epoch(segmenter, averaged, dataset, config, optimizer, scheduler, scaler, bar)
            best = max((row["score"] for row in history), default=-math.inf)
            row, score, kept = _validate(scored, manifest, config, folder, best)
            rate = max(scheduler.get_last_lr())
            row = {"epoch": epoch + 1, "train_loss": loss, "learning_rate": rate, **row, "score": score}
            history.append({**row, "best": kept, "seconds": round(time.monotonic() - started, 1)})
            schedule = {"last_epoch": scheduler.last_epoch, "_last_lr": scheduler.get_last_lr()}
            states = {"history": history, "scheduler": schedule, "scaler": scaler.state_dict()}
            save_state(folder, modules, optimizer, states)
            write_csv(folder / "history.csv", pd.DataFrame(history))
            if on_epoch:
                on_epoch(history[-1])
    _store_presence_cut(segmenter, manifest, config, folder)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    return read_history(folder)


def _training_data(segmenter: Segmenter, manifest: Manifest, config: RunConfig) -> PromptedDataset:
    return PromptedDataset(
        manifest,
        "train",
        config.train_size or segmenter.image_size,
        segmenter.mean,
        segmenter.std,
        seed=config.seed,
        negative_share=config.negative_share,
        crop_min=config.crop_min,
        color_strength=config.color_strength,
        degrade_share=config.degrade_share,
        joint_line_repeats=config.joint_line_repeats,
        paraphrases=config.paraphrases,
        balance_labels=config.balance_labels,
    )


def _train_epoch(
    segmenter: Segmenter,
    averaged: AveragedModel | None,
    dataset: PromptedDataset,
    config: RunConfig,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    scaler: torch.amp.GradScaler,
    bar: tqdm,
) -> float:
    """Makes one pass over the data and returns the mean loss."""
    device, dtype = segmenter.device, half_precision(segmenter.device)
    workers = min(4, os.cpu_count() or 1) if device.type == "cuda" else 0  # on a CPU they would take its cores
    loader = DataLoader(dataset, config.batch_size, sampler=dataset.order(), num_workers=workers)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    options = {name: getattr(config, name) for name in LOSS_OPTIONS}
    segmenter.train()
    total = 0.0
    for batch in loader:
        pixels, target, valid = (batch[name].to(device) for name in ("pixel_values", "target", "valid"))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = segmenter(pixels, segmenter.encode_prompts(batch["prompt"]))
        loss = segmentation_loss(logits, target, valid, **options)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at learning_rate {config.learning_rate}; lower it")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        if averaged:
            averaged.update_parameters(segmenter)
        total += loss.item() * len(pixels)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        bar.update()
    return total / len(dataset)


def _validate(
    segmenter: Segmenter, manifest: Manifest, config: RunConfig, folder: Path, best: float
) -> tuple[dict[str, Any], float, bool]:
    """Scores val, and makes the checkpoint where the score is above the best so far; says whether it did."""
    predictor = Predictor(TorchBackend(segmenter))
    thresholds, summary = score_validation(predictor, manifest, config)
    row = {
        f"val_{label}_{name}": values[name]
        for label, values in {**summary["labels"], "overall": summary["overall"] or {}}.items()
        for name in ("mean_iou", "mean_dice")
        if name in values
    }
    overall = summary["overall"]  # None where val is empty: then the last epoch is as good as any
    score = (overall["mean_iou"] + overall["mean_dice"]) / 2 if overall else 0.0
    kept = score > best or not overall
    if kept:
        how = "given" if config.threshold is not None else f"on val: {config.threshold_rule}"
        if how.endswith(THRESHOLD_RULES[1]):
            how += f" of {config.false_alarm_budget:g}"
        trained = manifest.rows("train").photo_id.unique() if config.epochs else ()
        with whole_folder(folder / CHECKPOINT) as partial:
            segmenter.save(partial)
            write_json(partial / PHOTOGRAPHS, sorted(segmenter.trained_on | {photo_hash(name) for name in trained}))
            write_json(partial / THRESHOLDS_FILE, {"thresholds": thresholds, "chosen": how})
    return row, score, kept


def _store_presence_cut(segmenter: Segmenter, manifest: Manifest, config: RunConfig, folder: Path) -> None:
    """Chooses the presence cut of the best epoch on val."""
    rows, _ = unseen_rows(Predictor(TorchBackend(segmenter)), manifest, "val")
    values = collect_presence(Predictor.load(folder / CHECKPOINT), manifest, rows, config.seed)
    path = folder / CHECKPOINT / THRESHOLDS_FILE
    write_json(path, {**read_json(path), "presence_cut": choose_presence_cut(*values)})


def read_history(folder: Path) -> pd.DataFrame:
    """Returns a run's history, one row an epoch; no rows for a run of 0 epochs."""
    return pd.read_csv(folder / "history.csv")


def _is_finished(folder: Path, epochs: int) -> bool:
    file = folder / CHECKPOINT / THRESHOLDS_FILE
    done = file.is_file() and "presence_cut" in read_json(file) and (folder / "history.csv").is_file()
    return done and len(read_history(folder)) == epochs


def _check_same_run(folder: Path, config: RunConfig, fingerprint: str) -> None:
    stored, wanted = read_json(folder / "config.json"), config.to_dict()
    different = [
        f"{name} {stored.get(name)!r}, now {wanted[name]!r}" for name in wanted if stored.get(name) != wanted[name]
    ]
    about = folder / "environment.json"
    if about.is_file() and read_json(about)["data_fingerprint"] != fingerprint:
        different.append("the data, which have changed")
    if different:
        number = next(n for n in range(2, 10_000) if not folder.with_name(f"{folder.name}-{n}").exists())
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(different)}. "
            f"Give another run_name; {folder.name}-{number} is free"
        )
