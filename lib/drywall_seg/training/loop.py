"""One epoch of training on any number of devices: micro-batches, half precision, clipping, averaging."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from drywall_seg.models.base import Features
from drywall_seg.training.feature_cache import stored_features
from drywall_seg.training.losses import LOSS_OPTIONS, segmentation_losses
from drywall_seg.training.optimisation import batch_norms, learning_rate_factor, trained_tensors, update_average
from drywall_seg.training.state import Training, save_training


def train_epoch(training: Training, folder: Path, bar: tqdm) -> dict[str, float]:
    """Goes on with the dataset's epoch from where the losses end; each process takes every n-th image of a batch.

    Every `checkpoint_steps` the state is stored, but not at the epoch's end: val is scored first.

    Returns:
        train_loss, the mean over the epoch's images, and learning_rate, that of its last step.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    config, dataset, accelerator = training.config, training.dataset, training.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    order, size = dataset.order(), config.batch_size
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    first = dataset.epoch * training.steps_per_epoch
    left = batches[len(training.losses) - first :]
    # One that has none of a last small batch lends a hand that does not count, since all must agree.
    shares = [batch[rank::world] or batch[:1] for batch in left]
    reads_ahead = accelerator.device.type == "cuda" and not training.store
    workers = min(4, os.cpu_count() or 1) if reads_ahead else 0  # on a CPU they would take its cores
    loader = DataLoader(
        dataset,
        batch_sampler=shares,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # rows cannot be pickled
        generator=torch.Generator(),  # else it takes a number from the one that a state holds
    )
    set_training_mode(training)
    for indices, batch in zip(left, loader, strict=True):
        weight = float(rank < len(indices)) / len(indices)
        training.losses.append(optimiser_step(training, batch, weight))
        bar.set_postfix(loss=f"{training.losses[-1]:.3f}", refresh=False)
        bar.update()
        step = len(training.losses)
        if step % config.checkpoint_steps == 0 and step % training.steps_per_epoch:
            agree(training)
            save_training(training, folder)
    agree(training)
    total = sum(loss * len(batch) for loss, batch in zip(training.losses[first:], batches, strict=True))
    rate = max(group["lr"] for group in training.optimizer.param_groups)
    return {"train_loss": total / len(dataset), "learning_rate": rate}


def set_training_mode(training: Training) -> None:
    """Sets the modes, and says where micro-batches cannot add up to the batch."""
    norms = batch_norms(training.segmenter.train())
    size = training.config.batch_size
    if training.config.freeze_norms:
        for norm in norms:
            norm.eval()
    elif norms and training.micro_batch < size and not training.losses:
        training.accelerator.print(
            f"{len(norms)} BatchNorms see {training.micro_batch} images at once: not the same as batches of {size}; "
            "with freeze_norms it would be"
        )


def optimiser_step(training: Training, batch: dict[str, Any], weight: float) -> float:
    """Makes one step with this process's share of a batch, and returns the loss of the whole batch.

    Where a device's memory runs out the step is begun again with half as many images at once. `weight` is that of each
    image's own loss in the batch's: 1 / images, or 0 to lend a hand.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    config, accelerator, optimizer = training.config, training.accelerator, training.optimizer
    step = len(training.losses)
    factor = learning_rate_factor(step, training.n_steps, config.warmup_share)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    norms = batch_norms(training.segmenter)
    figures = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    while (total := _backward(training, batch, weight)) is None:
        training.micro_batch = math.ceil(training.micro_batch / 2)
        clear_device_cache(garbage_collection=True)
        for buffer, before in figures:
            buffer.copy_(before)
        but = f", but {len(norms)} BatchNorms see no more than that" if norms else ""
        tqdm.write(f"out of memory: going on with {training.micro_batch} images at once, the batch stays as it is{but}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loss = add_up(accelerator, parameters, total)
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} at learning_rate {config.learning_rate}; lower it")
    accelerator.clip_grad_norm_(parameters, config.clip_norm)
    optimizer.step()
    update_average(training.average, trained_tensors(training.segmenter), config.ema_decay, step)
    return loss


def _backward(training: Training, batch: dict[str, Any], weight: float) -> Tensor | None:
    """Adds up the gradients of a batch's micro-batches; returns the loss, or None where memory ran out."""
    accelerator, size = training.accelerator, training.micro_batch
    options = {name: getattr(training.config, name) for name in LOSS_OPTIONS}
    training.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=accelerator.device)
    try:
        for first in range(0, len(batch["prompt"]), size):
            piece = {name: values[first : first + size] for name, values in batch.items()}
            target, valid = (piece[name].to(accelerator.device) for name in ("target", "valid"))
            with accelerator.autocast():
                embeddings = training.segmenter.encode_prompts(piece["prompt"])
                logits = training.segmenter.decode(_features(training, piece), embeddings)
            loss = segmentation_losses(logits, target, valid, **options).sum() * weight
            accelerator.backward(loss)
            total += loss.detach()
    except RuntimeError as error:
        if size == 1 or not should_reduce_batch_size(error):
            raise
        return None
    return total


def _features(training: Training, piece: dict[str, Any]) -> Features:
    if training.store:
        views = list(zip(piece["image_id"], piece["view"].tolist(), strict=True))
        return stored_features(training.store, training.segmenter, training.dataset, views)
    return training.segmenter.encode_images(piece["pixel_values"].to(training.accelerator.device))


def add_up(accelerator: Accelerator, parameters: list[Tensor], total: Tensor) -> float:
    """Adds up gradients, in place, and losses over all processes.

    By hand and not with DDP: a device whose memory ran out can begin its share again while the others wait.
    """
    if accelerator.num_processes == 1:
        return total.item()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([total.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    flat = accelerator.reduce(flat, "sum")
    for parameter, piece in zip(parameters, flat[1:].split([p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.view_as(parameter)
    return flat[0].item()


@torch.no_grad()
def agree(training: Training) -> None:
    """Makes BatchNorm's running figures the mean over the processes, each of which saw other images."""
    if training.accelerator.num_processes == 1:
        return
    weights = dict(training.segmenter.named_parameters())
    for tensors in (trained_tensors(training.segmenter), training.average):
        for name, tensor in tensors.items():
            if name not in weights and tensor.is_floating_point():
                tensor.copy_(training.accelerator.reduce(tensor, "mean"))
