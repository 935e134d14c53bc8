"""Learning rates and averages: what surrounds the optimiser."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from drywall_seg.config import RunConfig
from drywall_seg.models import Segmenter


def parameter_groups(segmenter: Segmenter, config: RunConfig) -> list[dict[str, Any]]:
    """Returns the trainable weights, those of the encoder with their own learning rate."""
    segmenter.trainable_parameters(config.trainable)
    rates = {"decoder": config.learning_rate, "encoder": config.learning_rate * config.encoder_rate_share}
    groups = []
    for part, modules in segmenter.parts().items():
        weights = [p for module in modules for p in module.parameters() if p.requires_grad]
        if weights:
            groups.append({"params": weights, "lr": rates[part]})
    return groups


def learning_rate_factor(n_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Returns the factor by step: linear up over the warm-up's share of the steps, then a cosine down to 0."""
    n_warm = max(1, round(warmup_share * n_steps))

    def factor(step: int) -> float:
        if step < n_warm:
            return (step + 1) / n_warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warm) / max(1, n_steps - n_warm))))

    return factor


def ema(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Returns the rule of a moving average whose first steps count fully: decay at most (1 + n) / (10 + n)."""

    def average(mean: Tensor, value: Tensor, n: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return value
        return mean + (1 - min(decay, (1 + int(n)) / (10 + int(n)))) * (value - mean)

    return average
