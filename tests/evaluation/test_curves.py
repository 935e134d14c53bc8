import numpy as np
import pandas as pd
import pytest

from drywall_seg.evaluation.curves import calibration, expected_calibration_error, precision_recall, presence_roc
from drywall_seg.evaluation.metrics import score_histogram
from drywall_seg.evaluation.thresholds import CANDIDATES


def rows_of(*labels):
    return pd.DataFrame({"label": labels})


def histogram(levels, target):
    return score_histogram(np.uint8([levels]), np.uint8([target]))


def test_precision_and_recall_are_pooled():
    histograms = np.array([histogram([200, 100, 50], [1, 0, 1]), histogram([200, 200], [1, 0])])
    table = precision_recall(rows_of("crack", "crack"), histograms).set_index("threshold")
    assert table.loc[0.5, ["precision", "recall"]].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert table.loc[0.99, ["precision", "recall"]].tolist() == [1.0, 0.0]
    assert table.loc[0.01, "recall"] == 1.0 and len(table) == len(CANDIDATES)


def test_calibration_of_a_model_that_is_right_about_itself():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (1, 200_000), dtype=np.uint8)
    target = (rng.random(levels.shape) < levels / 255).astype(np.uint8)
    table = calibration(rows_of("crack"), np.array([score_histogram(levels, target)]))
    assert len(table) == 10 and table.n_pixels.sum() == levels.size
    assert (table.mean_prob - table.target_share).abs().max() < 0.02
    assert expected_calibration_error(table)["crack"] < 0.01


def test_calibration_of_a_model_that_is_too_sure():
    histograms = np.array([histogram([255, 255, 0, 0], [1, 0, 0, 0]), histogram([128] * 4, [1, 1, 0, 0])])
    table = calibration(rows_of("crack", "joint_line"), histograms)
    assert table[table.label == "crack"].values.tolist() == [["crack", 0, 2, 0.0, 0.0], ["crack", 9, 2, 1.0, 0.5]]
    errors = expected_calibration_error(table)
    assert errors["crack"] == pytest.approx(0.25) and errors["joint_line"] == pytest.approx(128 / 255 - 0.5)


def test_presence_as_a_detector():
    roc, area = presence_roc(np.array([0.9, 0.4]), np.array([0.5, 0.1]))
    assert area == 0.75  # of four pairs three are ordered rightly
    assert roc[["true_positive_rate", "false_positive_rate"]].values.tolist() == [
        [0, 0],
        [0.5, 0],
        [0.5, 0.5],
        [1, 0.5],
        [1, 1],
    ]
    assert presence_roc(np.array([0.5, 0.5]), np.array([0.5]))[1] == 0.5


@pytest.mark.parametrize(("present", "absent"), [([], [0.1]), ([0.1], []), ([], [])])
def test_presence_without_one_side(present, absent):
    roc, area = presence_roc(np.array(present), np.array(absent))
    assert roc.empty and area is None


def test_no_rows():
    nothing = np.zeros((0, 2, 256), int)
    assert precision_recall(rows_of(), nothing).empty and calibration(rows_of(), nothing).empty
    assert expected_calibration_error(calibration(rows_of(), nothing)) == {}
