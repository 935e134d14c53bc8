import numpy as np
import pandas as pd
import pytest

from drywall_seg.evaluation.compare import NO_DIFFERENCE, compare_runs


def run(scores, label="crack", copies=1, target=10):
    n = len(scores)
    return pd.DataFrame(
        {
            "image_id": [f"{label}{i}" for i in range(n)],
            "label": label,
            "photo_id": [f"p{i // copies}" for i in range(n)],
            "tp": 4,
            "fn": target - 4,
            "iou": scores,
        }
    )


def test_a_small_gain_on_every_image_is_shown_and_noise_is_not():
    base = np.random.default_rng(0).random(60) * 0.5
    better = compare_runs(run(base + 0.01), run(base)).iloc[0]
    assert better.verdict == "ours is better" and better.mean_difference == pytest.approx(0.01)
    assert compare_runs(run(base), run(base + 0.01)).iloc[0].verdict == "theirs is better"
    noise = compare_runs(run(base + np.random.default_rng(1).normal(0, 0.1, 60)), run(base)).iloc[0]
    assert noise.verdict == NO_DIFFERENCE and noise.low < 0 < noise.high
    assert compare_runs(run(base), run(base)).iloc[0].verdict == NO_DIFFERENCE


def test_copies_of_a_photograph_count_once():
    base, gain = np.zeros(40), np.repeat([0.3, -0.1], 20)
    assert compare_runs(run(base + gain), run(base)).iloc[0].verdict == "ours is better"
    few = compare_runs(run(base + gain, copies=20), run(base, copies=20)).iloc[0]
    assert few.n_photographs == 2 and few.verdict == NO_DIFFERENCE


def test_only_shared_images_count_and_each_label_for_itself():
    ours = pd.concat([run([0.5, 0.6, 0.7]), run([0.2, 0.3], "joint_line")])
    theirs = pd.concat([run([0.5, 0.6]), run([0.1, 0.1], "taping_area")])
    table = compare_runs(ours, theirs)
    assert table.label.tolist() == ["crack"] and table.n_images.tolist() == [2]
    one = compare_runs(run([0.9]), run([0.1])).iloc[0]
    assert one.verdict == NO_DIFFERENCE and np.isnan(one.low)
    assert compare_runs(run([0.9]), run([0.1], "joint_line")).empty


def test_other_truths_are_refused():
    with pytest.raises(ValueError, match="crack0, crack: .* different targets"):
        compare_runs(run([0.5]), run([0.5], target=11))


def test_images_without_the_score_are_left_out():
    base = np.linspace(0.1, 0.5, 20)
    ours = run(base + 0.2)
    ours.loc[3, "iou"] = np.nan
    row = compare_runs(ours, run(base)).iloc[0]
    assert row.verdict == "ours is better" and row.n_images == 19
    assert compare_runs(run([np.nan] * 3), run([0.1] * 3)).empty
