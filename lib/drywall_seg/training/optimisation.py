"""Learning rates and averages: what surrounds the optimiser."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from drywall_seg.models import Segmenter
from drywall_seg.settings import RunConfig


def parameter_groups(segmenter: Segmenter, config: RunConfig) -> list[dict[str, Any]]:
    """Returns the trainable weights, those of the encoder with their own learning rate."""
    segmenter.trainable_parameters(config.trainable)
    rates = {"decoder": config.learning_rate, "encoder": config.learning_rate * config.encoder_rate_share}
    groups = []
    for part, modules in segmenter.parts().items():
        weights = [p for module in modules for p in module.parameters() if p.requires_grad]
        if weights:
            groups.append({"params": weights, "lr": rates[part], "initial_lr": rates[part]})
    return groups


def learning_rate_factor(step: int, n_steps: int, warmup_share: float) -> float:
    """Returns the factor at a step: linear up over the warm-up's share of the steps, then a cosine down to 0."""
    n_warm = max(1, round(warmup_share * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warm) / max(1, n_steps - n_warm))))


def trained_tensors(segmenter: Segmenter) -> dict[str, Tensor]:
    """Returns what training changes, by name: trainable weights, and the buffers of BatchNorm."""
    weights = {name: p for name, p in segmenter.named_parameters() if p.requires_grad}
    persistent = segmenter.state_dict(keep_vars=True)
    return weights | {name: b for name, b in segmenter.named_buffers() if name in persistent}


def batch_norms(segmenter: Segmenter) -> list[nn.Module]:
    """Returns the BatchNorms that train."""
    norms = (module for module in segmenter.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.training and norm.weight.requires_grad]


@torch.no_grad()
def update_average(average: dict[str, Tensor], tensors: dict[str, Tensor], decay: float, n_steps: int) -> None:
    """Moves an average of the weights on by a step, in place; the first step counts fully, early ones more.

    The decay is at most (1 + n) / (10 + n) after n steps.
    """
    follow = 1.0 if n_steps == 0 else 1 - min(decay, (1 + n_steps) / (10 + n_steps))
    for name, mean in average.items():
        if follow == 1 or not mean.is_floating_point():  # BatchNorm counts its batches
            mean.copy_(tensors[name])
        else:
            mean += follow * (tensors[name] - mean)


@contextmanager
def averaged_weights(segmenter: Segmenter, average: dict[str, Tensor]) -> Iterator[None]:
    """Puts averaged weights into a segmenter for the length of the block; an empty average changes nothing."""
    tensors = trained_tensors(segmenter)
    own = {name: tensors[name].detach().clone() for name in average}
    _fill(tensors, average)
    try:
        yield
    finally:
        _fill(tensors, own)


@torch.no_grad()
def _fill(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        tensors[name].copy_(value)
