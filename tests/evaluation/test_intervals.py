import numpy as np
import pytest

from drywall_seg.evaluation.intervals import bootstrap_interval


def test_copies_of_a_photograph_do_not_make_it_surer():
    rng = np.random.default_rng(0)
    values = rng.random(30)
    single = bootstrap_interval(values, np.arange(30))
    copied = bootstrap_interval(np.repeat(values, 9), np.repeat(np.arange(30), 9))
    assert copied == pytest.approx(single)
    naive = bootstrap_interval(np.repeat(values, 9), np.arange(270))
    assert naive[1] - naive[0] < 0.5 * (single[1] - single[0])


def test_it_agrees_with_the_normal_interval_and_holds_the_mean():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = bootstrap_interval(values, np.arange(400))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)


def test_it_depends_on_the_seed_alone():
    values, photos = np.random.default_rng(2).random(20), np.repeat([f"p{i}" for i in range(10)], 2)
    assert bootstrap_interval(values, photos) == bootstrap_interval(values, photos)
    assert bootstrap_interval(values, photos, seed=1) != bootstrap_interval(values, photos)


@pytest.mark.parametrize("photos", [[], ["a", "a", "a"]])
def test_too_few_photographs(photos):
    assert bootstrap_interval(np.ones(len(photos)), np.array(photos)) is None


def test_equal_values_have_no_width():
    assert bootstrap_interval(np.full(5, 0.25), np.arange(5)) == [0.25, 0.25]


def test_it_covers_a_known_mean_of_clustered_values():
    rng, covered, n_trials = np.random.default_rng(0), 0, 1000
    for _ in range(n_trials):
        sizes = rng.integers(1, 9, 60)
        photos = np.repeat(np.arange(60), sizes)
        values = 0.5 + rng.normal(0, 0.15, 60)[photos] + rng.normal(0, 0.05, len(photos))
        low, high = bootstrap_interval(values, photos, n_draws=500)
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / n_trials <= 0.98
