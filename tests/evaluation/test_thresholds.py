import numpy as np
import pandas as pd
import pytest

from drywall_seg.evaluation.metrics import dice, mask_counts, score_histogram
from drywall_seg.evaluation.thresholds import CANDIDATES, choose_presence_cut, choose_thresholds, sweep
from drywall_seg.inference.predict import first_level


def histogram(levels, target):
    return score_histogram(np.uint8([levels]), np.uint8([target]))


def test_the_sweep_is_the_mean_dice_of_the_masks():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (4, 1, 50), dtype=np.uint8)
    targets = rng.integers(0, 2, (4, 1, 50), dtype=np.uint8)
    scores = sweep(np.array([score_histogram(lv, tg) for lv, tg in zip(levels, targets, strict=True)]))
    for threshold, score in zip(CANDIDATES, scores, strict=True):
        masks = levels >= first_level(threshold)
        expected = np.mean([dice(*mask_counts(mk, tg)) for mk, tg in zip(masks, targets, strict=True)])
        assert abs(score - expected) < 1e-12
    assert len(CANDIDATES) == 99


def test_each_label_gets_the_middle_of_its_best_thresholds():
    # Cracks are parted by any level from 51 to 102: thresholds .17 to .40; seams from 205 to 230: .81 to .90.
    rows = pd.DataFrame({"label": ["crack", "taping_area"]})
    histograms = np.array([histogram([42, 102, 200], [0, 1, 1]), histogram([10, 204, 230], [0, 0, 1])])
    chosen = choose_thresholds(rows, histograms)
    assert chosen == {"crack": 0.29, "taping_area": 0.86}


def test_a_label_that_does_not_occur_gets_none():
    assert choose_thresholds(pd.DataFrame({"label": []}), np.zeros((0, 2, 256), int)) == {}


def test_the_presence_cut_lies_between_what_is_there_and_what_is_not():
    assert choose_presence_cut(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.3])) == 0.5
    # One of four that are there is given up for three of four that are not: 0.75 + 0.75 beats 1 + 0.25.
    assert choose_presence_cut(np.array([0.2, 0.8, 0.9, 0.9]), np.array([0.1, 0.3, 0.4, 0.85])) == pytest.approx(0.6)


def test_without_one_side_nothing_is_emptied():
    assert choose_presence_cut(np.array([]), np.array([0.2])) == 0.0
    assert choose_presence_cut(np.array([0.2]), np.array([])) == 0.0
