import numpy as np
import pytest

from drywall_seg.inference.crossings import straight_runs
from drywall_seg.inference.measure import measure, scale_of
from tests.inference.test_measure import band, grid


def runs(mask):
    (row,) = measure(mask).itertuples()
    return row.runs


@pytest.mark.parametrize("width", [4, 9, 20, 30])
@pytest.mark.parametrize("angle", [0, 3, 7, 30, 75])
@pytest.mark.parametrize("turn", [90, 60, 45, 30])
def test_two_lines_that_cross_are_two_runs(width, angle, turn):
    x, y = grid()
    found = runs(band(x, y, 500, width, angle) | band(x, y, 420, width, angle + turn))
    assert found == pytest.approx([500, 420], rel=0.03)


@pytest.mark.parametrize("width", [4, 9, 20, 30])
@pytest.mark.parametrize("angle", [0, 3, 7, 30, 75])
def test_a_t_is_two_runs_the_second_from_the_middle_of_the_first(width, angle):
    x, y = grid()
    found = runs(band(x, y, 500, width, angle) | band(x, y, 300, width, angle + 90, start=0))
    assert found == pytest.approx([500, 300], rel=0.03)


def test_a_grid_of_joints():
    x, y = grid()
    bars = [band(x, y - at, 500, 8, 0) for at in (-120, 120)] + [band(x - at, y, 440, 8, 90) for at in (-150, 0, 150)]
    assert runs(np.any(bars, axis=0)) == pytest.approx([500, 500, 440, 440, 440], rel=0.03)


def test_what_turns_more_than_45_degrees_does_not_go_on():
    x, y = grid()
    star = np.any([band(x, y, 200, 6, angle, start=0) for angle in (0, 120, 240)], axis=0)
    assert runs(star) == pytest.approx([200, 200, 200], rel=0.03)


def test_a_bend_and_a_ring_are_one_run():
    x, y = grid()
    bend = band(x, y, 200, 8, 0, start=0) | band(x, y, 150, 8, 90, start=0)
    assert runs(bend) == pytest.approx([350], rel=0.05)
    assert runs(np.abs(np.hypot(x, y) - 150) <= 4) == pytest.approx([2 * np.pi * 150], rel=0.03)


def test_lines_given_as_points():
    def line(*corners):
        return np.concatenate([np.linspace(a, b, 30) for a, b in zip(corners, corners[1:], strict=False)])

    middle = (0.0, 0.0)
    cross = [line(middle, end) for end in ((100, 0), (-80, 0), (0, 60), (0, -50))]
    found = straight_runs(cross, 3)
    assert sorted({tuple(np.abs(run[[0, -1]]).max(axis=1)) for run in found}) == [(60, 50), (100, 80)]
    assert sum(map(len, found)) == sum(map(len, cross))
    # Three ways between two crossings are three runs; where all of them are too short to be any, they stay.
    ways = [line((0, 0), (50, y), (100, 0)) for y in (40, 0, -40)]
    assert len(straight_runs(ways, 3)) == 3
    assert [run.tolist() for run in straight_runs(ways, 1000)] == [way.tolist() for way in ways]


def test_runs_have_the_unit_of_the_scale():
    x, y = grid()
    mask = band(x, y, 500, 9, 10) | band(x, y, 400, 9, 100)
    pixels, millimetres = measure(mask).runs[0], measure(mask, scale_of(0.5)).runs[0]
    assert millimetres == pytest.approx([0.5 * run for run in pixels])
