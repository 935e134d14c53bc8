import numpy as np
import pandas as pd
import pytest

from drywall_seg.evaluation.metrics import dice, iou, mask_counts, score_histogram
from drywall_seg.evaluation.thresholds import (
    CANDIDATES,
    choose_presence_cut,
    choose_thresholds,
    require_val,
    sweep_table,
)
from drywall_seg.inference.scores import first_level
from drywall_seg.settings import THRESHOLD_RULES


def histogram(levels, target):
    return score_histogram(np.uint8([levels]), np.uint8([target]))


def test_the_sweep_scores_the_masks_at_each_threshold():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (4, 1, 50), dtype=np.uint8)
    targets = rng.integers(0, 2, (4, 1, 50), dtype=np.uint8)
    targets[3] = 0
    histograms = np.array([score_histogram(lv, tg) for lv, tg in zip(levels, targets, strict=True)])
    table = sweep_table(pd.DataFrame({"label": ["crack"] * 4}), histograms)
    assert table.threshold.tolist() == CANDIDATES.tolist() and len(CANDIDATES) == 99
    for row in table.itertuples():
        counts = [mask_counts(lv >= first_level(row.threshold), tg) for lv, tg in zip(levels, targets, strict=True)]
        assert row.mean_iou == pytest.approx(np.mean([iou(*c) for c in counts]))
        assert row.mean_dice == pytest.approx(np.mean([dice(*c) for c in counts]))
        assert row.mean_recall == pytest.approx(np.mean([tp / (tp + fn) if tp + fn else 1 for tp, _, fn in counts]))
        alarms = [fp / (tg == 0).sum() for (_, fp, _), tg in zip(counts, targets, strict=True)]
        assert row.mean_false_alarm == pytest.approx(np.mean(alarms))


def test_each_label_gets_the_middle_of_its_best_thresholds():
    # Cracks are parted by any level from 51 to 102: thresholds .17 to .40; seams from 205 to 230: .81 to .90.
    rows = pd.DataFrame({"label": ["crack", "taping_area"], "split": "val"})
    histograms = np.array([histogram([42, 102, 200], [0, 1, 1]), histogram([10, 204, 230], [0, 0, 1])])
    chosen = choose_thresholds(rows, histograms)
    assert chosen == {"crack": 0.29, "taping_area": 0.86}


def test_a_label_that_does_not_occur_gets_none():
    assert choose_thresholds(pd.DataFrame({"label": [], "split": []}), np.zeros((0, 2, 256), int)) == {}


def test_recall_at_a_false_alarm_budget():
    # Of four pixels without target, one is masked up to level 150, two up to 100.
    rows = pd.DataFrame({"label": ["crack"], "split": ["val"]})
    histograms = np.array([histogram([0, 0, 100, 150, 90, 200], [0, 0, 0, 0, 1, 1])])
    rule = THRESHOLD_RULES[1]
    assert choose_thresholds(rows, histograms, rule, 0.25) == {"crack": 0.40}  # level 102: 100 is out
    assert choose_thresholds(rows, histograms, rule, 0.5) == {"crack": 0.01}
    assert choose_thresholds(rows, histograms, rule, 0.0) == {"crack": 0.59}  # level 151
    full = np.array([histogram([255, 255], [0, 1])])
    assert choose_thresholds(rows, full, rule, 0.1) == {"crack": 0.99}


@pytest.mark.parametrize("others", [["test"], ["val", "train"], ["val", None]])
def test_nothing_is_chosen_on_other_splits(others):
    rows = pd.DataFrame({"label": "crack", "split": others})
    with pytest.raises(ValueError, match="chosen on val alone, not on (test|train|nan|None)"):
        choose_thresholds(rows, np.zeros((len(rows), 2, 256), int))
    with pytest.raises(ValueError, match="val alone"):
        require_val(rows.split)


def test_the_presence_cut_lies_between_what_is_there_and_what_is_not():
    assert choose_presence_cut(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.3])) == 0.5
    # One of four that are there is given up for three of four that are not: 0.75 + 0.75 beats 1 + 0.25.
    assert choose_presence_cut(np.array([0.2, 0.8, 0.9, 0.9]), np.array([0.1, 0.3, 0.4, 0.85])) == pytest.approx(0.6)


def test_without_one_side_nothing_is_emptied():
    assert choose_presence_cut(np.array([]), np.array([0.2])) == 0.0
    assert choose_presence_cut(np.array([0.2]), np.array([])) == 0.0
