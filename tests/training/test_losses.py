import numpy as np
import pytest
import torch

from drywall_seg.training.losses import bce_loss, dice_loss, segmentation_loss


def tensors(logits, target, valid=None):
    logits, target = (torch.tensor([values], dtype=torch.float32) for values in (logits, target))
    return logits, target, torch.ones_like(target, dtype=torch.bool) if valid is None else torch.tensor([valid])


def test_bce_by_hand():
    loss = bce_loss(*tensors([[0.0, 2.0]], [[1.0, 0.0]]))
    assert loss.item() == pytest.approx((np.log(2) + np.log(1 + np.exp(2))) / 2, rel=1e-6)


def test_dice_by_hand():
    # Probabilities .5 and .5 against 1 and 0: overlap .5, sums 1 and 1; smoothed by one pixel.
    assert dice_loss(*tensors([[0.0, 0.0]], [[1.0, 0.0]])).item() == pytest.approx(1 - (1 + 1) / (2 + 1))


def test_an_empty_target_rises_with_the_predicted_area():
    nothing, something, everything = (
        dice_loss(*tensors([[value] * 100], [[0.0] * 100])).item() for value in (-30.0, -2.0, 30.0)
    )
    assert nothing == pytest.approx(0, abs=1e-6)
    assert nothing < something < everything < 1
    full = segmentation_loss(*tensors([[-30.0] * 4], [[0.0] * 4]))
    assert torch.isfinite(full)


def test_padding_does_not_count():
    whole = tensors([[1.0, -1.0]], [[1.0, 0.0]])
    padded = tensors([[1.0, -1.0, 9.0, 9.0]], [[1.0, 0.0, 0.0, 1.0]], [[True, True, False, False]])
    for loss in (bce_loss, dice_loss):
        assert loss(*whole).item() == pytest.approx(loss(*padded).item())
    nothing = tensors([[1.0]], [[1.0]], [[False]])
    assert segmentation_loss(*nothing).item() == 0


def test_the_batch_is_the_mean_of_its_images():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    target = (torch.rand(3, 8, 8, generator=generator) < 0.2).float()
    valid = torch.rand(3, 8, 8, generator=generator) < 0.9
    each = [segmentation_loss(*(t[i : i + 1] for t in (logits, target, valid))) for i in range(3)]
    assert segmentation_loss(logits, target, valid).item() == pytest.approx(sum(each).item() / 3)


def test_the_weights_are_those_of_the_report_by_default():
    arguments = tensors([[0.5, -1.0, 2.0]], [[1.0, 0.0, 0.0]])
    expected = 0.7 * bce_loss(*arguments) + 0.3 * dice_loss(*arguments)
    assert segmentation_loss(*arguments).item() == pytest.approx(expected.item())
