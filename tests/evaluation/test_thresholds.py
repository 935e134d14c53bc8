import numpy as np
import pandas as pd

from drywall_seg.evaluation.metrics import dice, mask_counts, score_histogram
from drywall_seg.evaluation.thresholds import CANDIDATES, choose_thresholds, sweep
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
