"""Losses: logits (B, S, S), target (B, S, S) in [0, 1], valid bool (B, S, S); one value an image."""

import torch
from torch import Tensor
from torch.nn import functional as F

LOSS_OPTIONS = ("bce_weight", "dice_weight", "positive_weight", "focal_gamma", "boundary_weight", "tversky_alpha")
"""Settings of a run that `segmentation_losses` takes."""
BOUNDARY_PIXELS = 3
"""How far from a target's outline a pixel may lie to count as its boundary."""


def bce_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    positive_weight: float = 1.0,
    focal_gamma: float = 0.0,
    boundary_weight: float = 0.0,
) -> Tensor:
    """Returns the weighted mean binary cross-entropy over each image's valid pixels, (B,); 0 where none is valid.

    Target pixels count `positive_weight`, against 1 for the others; pixels near a target's outline 1 +
    `boundary_weight` times as much, since thin seams are nearly all outline; and what is told right already less, the
    more so the larger `focal_gamma` (Lin et al. 2017, https://arxiv.org/abs/1708.02002).
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if focal_gamma:
        probs = torch.sigmoid(logits)
        losses = losses * (probs - target).abs() ** focal_gamma
    weights = valid * (1 + (positive_weight - 1) * target)
    if boundary_weight:
        weights = weights * (1 + boundary_weight * boundary(target))
    return (losses * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)


def boundary(target: Tensor) -> Tensor:
    """Returns 1 within `BOUNDARY_PIXELS` of the outline of targets (B, S, S), on either side, and 0 elsewhere."""
    side = 2 * BOUNDARY_PIXELS + 1
    inside = (target >= 0.5).float()[:, None]
    largest = F.max_pool2d(inside, side, 1, BOUNDARY_PIXELS)
    smallest = -F.max_pool2d(-inside, side, 1, BOUNDARY_PIXELS)
    return (largest - smallest)[:, 0]


def dice_loss(logits: Tensor, target: Tensor, valid: Tensor, smooth: float = 1.0, tversky_alpha: float = 0.5) -> Tensor:
    """Returns 1 - Dice of the probabilities over each image's valid pixels, (B,).

    `smooth`, in pixels, is added above and below: an empty target gives 0 for an empty prediction and rises to 1
    with the predicted area (V-Net, https://arxiv.org/abs/1606.04797). With a `tversky_alpha` other than .5 it is the
    Tversky loss (https://arxiv.org/abs/1706.05721): false alarms count alpha, misses 1 - alpha.
    """
    probs, target = torch.sigmoid(logits) * valid, target * valid
    overlap = (probs * target).sum((1, 2))
    false_alarms, misses = probs.sum((1, 2)) - overlap, target.sum((1, 2)) - overlap
    total = 2 * (overlap + tversky_alpha * false_alarms + (1 - tversky_alpha) * misses)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def segmentation_losses(
    logits: Tensor,
    target: Tensor,
    valid: Tensor,
    bce_weight: float = 0.7,
    dice_weight: float = 0.3,
    tversky_alpha: float = 0.5,
    **bce_options: float,
) -> Tensor:
    """Returns the weighted sum of both losses of each image, (B,): micro-batches of a batch add up to it.

    The other options are those of `bce_loss` and `dice_loss`.
    """
    logits = logits.float()  # half precision overflows in the sums
    bce = bce_loss(logits, target, valid, **bce_options)
    return bce_weight * bce + dice_weight * dice_loss(logits, target, valid, tversky_alpha=tversky_alpha)
