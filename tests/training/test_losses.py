import numpy as np
import pytest
import torch

from drywall_seg.settings import RunConfig
from drywall_seg.training.losses import LOSS_OPTIONS, bce_loss, boundary, dice_loss, segmentation_losses


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
    full = segmentation_losses(*tensors([[-30.0] * 4], [[0.0] * 4]))
    assert torch.isfinite(full)


def test_padding_does_not_count():
    whole = tensors([[1.0, -1.0]], [[1.0, 0.0]])
    padded = tensors([[1.0, -1.0, 9.0, 9.0]], [[1.0, 0.0, 0.0, 1.0]], [[True, True, False, False]])
    for loss in (bce_loss, dice_loss):
        assert loss(*whole).item() == pytest.approx(loss(*padded).item())
    nothing = tensors([[1.0]], [[1.0]], [[False]])
    assert segmentation_losses(*nothing).item() == 0


def test_each_image_has_its_own_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, 8, generator=generator)
    target = (torch.rand(3, 8, 8, generator=generator) < 0.2).float()
    valid = torch.rand(3, 8, 8, generator=generator) < 0.9
    each = [segmentation_losses(*(t[i : i + 1] for t in (logits, target, valid))) for i in range(3)]
    assert segmentation_losses(logits, target, valid).tolist() == pytest.approx([loss.item() for loss in each])


def test_the_weights_are_those_of_the_report_by_default():
    arguments = tensors([[0.5, -1.0, 2.0]], [[1.0, 0.0, 0.0]])
    expected = 0.7 * bce_loss(*arguments) + 0.3 * dice_loss(*arguments)
    assert segmentation_losses(*arguments).item() == pytest.approx(expected.item())


def test_target_pixels_count_as_much_as_they_are_weighted():
    logits, target, valid = tensors([[0.5, -1.0, 2.0]], [[1.0, 0.0, 0.0]])
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[0, 0]
    expected = (4 * each[0] + each[1] + each[2]) / 6
    assert bce_loss(logits, target, valid, positive_weight=4).item() == pytest.approx(expected.item())


def test_focal_by_hand():
    # Probability .5 of a target pixel: ln 2, times .5 squared.
    assert bce_loss(*tensors([[0.0]], [[1.0]]), focal_gamma=2).item() == pytest.approx(np.log(2) / 4)
    sure, unsure = (bce_loss(*tensors([[v]], [[1.0]]), focal_gamma=2).item() for v in (4.0, 0.0))
    plain = bce_loss(*tensors([[4.0]], [[1.0]])).item() / bce_loss(*tensors([[0.0]], [[1.0]])).item()
    assert sure / unsure < plain / 10


def test_the_boundary_is_on_both_sides_of_the_outline():
    target = torch.zeros(1, 20, 20)
    target[:, :, :10] = 1
    near = boundary(target)[0, 0]
    assert near.tolist() == [0] * 7 + [1] * 6 + [0] * 7
    assert boundary(torch.zeros(1, 9, 9)).sum() == 0 and boundary(torch.ones(1, 9, 9)).sum() == 0
    logits, valid = torch.zeros(1, 20, 20), torch.ones(1, 20, 20, dtype=torch.bool)
    logits[:, :, 9] = -3  # wrong at the outline
    assert bce_loss(logits, target, valid, boundary_weight=5) > bce_loss(logits, target, valid)
    logits = torch.zeros(1, 20, 20)
    logits[:, :, 0] = -3  # wrong far from it
    assert bce_loss(logits, target, valid, boundary_weight=5) < bce_loss(logits, target, valid)


def test_tversky_by_hand():
    # Probabilities .5, .5 against 1, 0: overlap .5, false alarm .5, miss .5.
    arguments = tensors([[0.0, 0.0]], [[1.0, 0.0]])
    assert dice_loss(*arguments, tversky_alpha=0.3).item() == pytest.approx(1 - 2 / 3)
    false_alarm, miss = tensors([[9.0, 9.0]], [[1.0, 0.0]]), tensors([[9.0, -9.0]], [[1.0, 1.0]])
    assert dice_loss(*false_alarm, tversky_alpha=0.2) < dice_loss(*miss, tversky_alpha=0.2)
    assert dice_loss(*false_alarm, tversky_alpha=0.8) > dice_loss(*miss, tversky_alpha=0.8)


def test_options_reach_the_losses_and_padding_never_counts():
    whole = tensors([[1.0, -1.0]], [[1.0, 0.0]])
    padded = tensors([[1.0, -1.0, 9.0, 9.0]], [[1.0, 0.0, 0.0, 0.0]], [[True, True, False, False]])
    options = dict(bce_weight=0.4, dice_weight=0.6, positive_weight=3.0, focal_gamma=1.0, tversky_alpha=0.3)
    expected = 0.4 * bce_loss(*whole, positive_weight=3.0, focal_gamma=1.0) + 0.6 * dice_loss(*whole, tversky_alpha=0.3)
    assert segmentation_losses(*whole, **options).item() == pytest.approx(expected.item())
    assert segmentation_losses(*padded, **options).item() == pytest.approx(expected.item())
    assert set(LOSS_OPTIONS) <= set(RunConfig().to_dict())
