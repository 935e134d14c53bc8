import numpy as np
import pytest

from drywall_seg.evaluation.thin import LineCounts, centre_line_counts, line_scores


def band(row, thickness=5, columns=slice(10, 90), side=100):
    mask = np.zeros((side, side), np.uint8)
    mask[row - thickness // 2 : row + thickness // 2 + 1, columns] = 255
    return mask


def f1(mask, target, tolerance=None):
    return line_scores(centre_line_counts(mask, target, tolerance))["line_f1"]


def test_thickness_does_not_matter_and_place_does():
    assert f1(band(50, 9), band(50, 5), 4.0) == 1
    assert f1(band(52), band(50), 2.0) == 1
    assert f1(band(54), band(50), 2.0) == 0


def test_the_tolerance_is_a_share_of_the_longer_side_and_inclusive():
    assert f1(band(51, 1), band(50, 1)) == 1  # 1 % of 100 pixels
    assert f1(band(52, 1), band(50, 1)) == 0
    wide = np.zeros((100, 400), np.uint8), np.zeros((100, 400), np.uint8)
    wide[0][50, 10:390] = wide[1][54, 10:390] = 255
    assert f1(*wide) == 1


def test_precision_and_recall():
    half = band(50, 1, slice(10, 50))
    counts = centre_line_counts(half, band(50, 1), 0.0)
    assert counts == LineCounts(40, 40, 40, 80)
    assert line_scores(counts) == {"line_precision": 1.0, "line_recall": 0.5, "line_f1": pytest.approx(2 / 3)}
    swapped = line_scores(centre_line_counts(band(50, 1), half, 0.0))
    assert swapped["line_precision"] == 0.5 and swapped["line_recall"] == 1.0


@pytest.mark.parametrize(
    ("mask", "target", "expected"),
    [(False, False, (1, 1, 1)), (True, False, (0, 1, 0)), (False, True, (1, 0, 0))],
)
def test_empty_masks(mask, target, expected):
    nothing, line = np.zeros((100, 100), np.uint8), band(50)
    counts = centre_line_counts(line if mask else nothing, line if target else nothing)
    assert tuple(line_scores(counts).values()) == expected
