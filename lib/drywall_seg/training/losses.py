"""Losses: logits (B, S, S), target (B, S, S) in [0, 1], valid bool (B, S, S); one value an image."""

import torch
from torch import Tensor
from torch.nn import functional as F


def bce_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Returns the mean binary cross-entropy over each image's valid pixels, (B,); 0 where none is valid."""
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * valid
    return losses.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def dice_loss(logits: Tensor, target: Tensor, valid: Tensor, smooth: float = 1.0) -> Tensor:
    """Returns 1 - Dice of the probabilities over each image's valid pixels, (B,).

    `smooth`, in pixels, is added above and below: an empty target gives 0 for an empty prediction and rises to 1
    with the predicted area (V-Net, https://arxiv.org/abs/1606.04797).
    """
    probs, target = torch.sigmoid(logits) * valid, target * valid
    overlap = (probs * target).sum((1, 2))
    total = probs.sum((1, 2)) + target.sum((1, 2))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def segmentation_loss(
    logits: Tensor, target: Tensor, valid: Tensor, bce_weight: float = 0.7, dice_weight: float = 0.3
) -> Tensor:
    """Returns the weighted sum of both losses, a mean over the batch's images of each image's own loss."""
    logits = logits.float()  # half precision overflows in the sums
    losses = bce_weight * bce_loss(logits, target, valid) + dice_weight * dice_loss(logits, target, valid)
    return losses.mean()
