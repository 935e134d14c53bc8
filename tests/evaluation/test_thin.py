import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize
from skimage.segmentation import find_boundaries

from drywall_seg.evaluation.thin import (
    Matches,
    boundary_matches,
    centre_line_matches,
    cldice,
    crack_scores,
    joint_line_scores,
    match_within,
    outline,
    precision_recall_f1,
    skeleton,
    skeleton_matches,
)


def band(row, thickness=5, columns=slice(10, 90), side=100):
    mask = np.zeros((side, side), np.uint8)
    mask[row - thickness // 2 : row + thickness // 2 + 1, columns] = 255
    return mask


def blobs(seed, shape=(70, 90)):
    """Random figures: some touch the border, some are thin."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(rng.integers(0, 6)):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask[top : top + rng.integers(1, 25), left : left + rng.integers(1, 40)] = True
    return mask


def brute_force(pred, true, tolerance):
    """By distance transforms of the whole picture."""
    near = []
    for points, others in ((pred, true), (true, pred)):
        distance = distance_transform_edt(~others) if others.any() else np.full(others.shape, np.inf)
        near.append(int((points & (distance <= tolerance)).sum()))
    return Matches(near[0], int(pred.sum()), near[1], int(true.sum()))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("tolerance", [0, 1, 2.5, 5])
def test_matching_equals_brute_force(seed, tolerance):
    pred, true = blobs(seed), blobs(seed + 1000)
    tolerances = (tolerance, 3.5)
    assert match_within(pred, true, *tolerances) == [brute_force(pred, true, t) for t in tolerances]


@pytest.mark.parametrize("seed", range(10))
def test_skeleton_and_outline_equal_scikit_images(seed):
    mask = blobs(seed)
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = False, False, False, False
    assert np.array_equal(skeleton(mask), skeletonize(mask))
    assert np.array_equal(outline(mask), find_boundaries(mask, mode="inner"))


def test_the_borders_of_the_photo_are_no_outline():
    mask = np.zeros((20, 20), bool)
    mask[:8] = True
    assert outline(mask).sum() == 20 and outline(mask)[7].all()


def test_thickness_does_not_matter_to_centre_lines_and_place_does():
    assert precision_recall_f1(centre_line_matches(band(50, 9), band(50, 5)))[2] > 0.98  # ends differ
    assert precision_recall_f1(centre_line_matches(band(51, 1), band(50, 1)))[2] == 1  # 1 % of 100 pixels
    assert precision_recall_f1(centre_line_matches(band(52, 1), band(50, 1)))[2] == 0


def test_tolerances_grow_with_the_photo():
    for scale in (1, 2):
        near, far = (np.zeros((640 * scale, 640 * scale), np.uint8) for _ in range(2))
        near[100 * scale], far[100 * scale + 3 * scale] = 255, 255
        scores = crack_scores(near, far)
        assert scores["tolerance_f1_2px"] == 0 and scores["tolerance_f1_4px"] == 1


def test_precision_and_recall():
    half = band(50, 1, slice(10, 50))
    assert centre_line_matches(half, band(80, 1)) == Matches(0, 40, 0, 80)
    scores = joint_line_scores(half, band(50, 1))
    assert scores["joint_line_precision"] == 1 and scores["joint_line_recall"] == 41 / 80  # one pixel of tolerance


def test_cldice_equals_its_definition():
    mask, target = band(50, 9, slice(10, 60)), band(52, 5)
    pred, true = skeletonize(mask > 0), skeletonize(target > 0)
    precision, sensitivity = (pred & (target > 0)).sum() / pred.sum(), (true & (mask > 0)).sum() / true.sum()
    expected = 2 * precision * sensitivity / (precision + sensitivity)
    assert cldice(mask, target) == pytest.approx(expected)


def test_the_scores_of_cracks_have_their_names():
    mask, target = band(50, 9, slice(10, 60)), band(52, 5)
    areas = match_within(mask > 0, target > 0, 2 * 100 / 640, 4 * 100 / 640)
    matches = *areas, boundary_matches(mask, target)
    names = ["tolerance_f1_2px", "tolerance_f1_4px", "boundary_f1"]
    assert crack_scores(mask, target) == {n: precision_recall_f1(m)[2] for n, m in zip(names, matches, strict=True)}


SCORES = [
    lambda m, t: precision_recall_f1(skeleton_matches(m, t)),
    lambda m, t: precision_recall_f1(match_within(m > 0, t > 0, 2)[0]),
    lambda m, t: precision_recall_f1(boundary_matches(m, t)),
    lambda m, t: precision_recall_f1(centre_line_matches(m, t)),
]


@pytest.mark.parametrize("score", SCORES)
def test_all_agree_on_empty_masks(score):
    nothing, line = np.zeros((100, 100), np.uint8), band(50)
    assert score(nothing, nothing) == (1, 1, 1)
    assert score(line, nothing) == (0, 1, 0)
    assert score(nothing, line) == (1, 0, 0)
    assert score(line, line) == (1, 1, 1)
    everything = np.full((100, 100), 255, np.uint8)
    assert score(everything, nothing)[2] == score(nothing, everything)[2] == 0
    assert score(everything, everything) == (1, 1, 1)
