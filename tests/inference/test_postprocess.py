import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from drywall_seg.inference.measure import measure
from drywall_seg.inference.postprocess import (
    BOXES,
    JOIN_SIDE,
    PostProcessing,
    _smallest_rectangle,
    fill_boxes,
    join_lines,
    postprocess,
)


def drawn(*boxes, shape=(100, 200)):
    mask = np.zeros(shape, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


def after(mask, **steps):
    return postprocess(mask, PostProcessing(**steps))


def test_without_steps_the_mask_is_delivered_as_it_is():
    mask = drawn((10, 10, 3, 3))
    assert after(mask) is mask
    empty = drawn()
    assert after(empty, opening=0.1, min_area=0.5) is empty


def test_what_is_thin_goes_and_the_rest_keeps_its_place():
    mask = drawn((20, 20, 40, 60), (80, 0, 2, 200))
    opened = after(mask, opening=0.01)  # two pixels of 200
    assert not opened[80:82].any() and opened[22:58, 22:78].all()
    assert not (opened & ~mask).any()


def test_narrow_gaps_close_and_no_band_grows_along_the_border():
    mask = drawn((40, 0, 10, 90), (40, 93, 10, 107))
    closed = after(mask, closing=0.01)
    assert closed[42:48].all() and not closed[:38].any() and not closed[52:].any()
    assert not after(drawn((40, 0, 10, 90), (40, 99, 10, 101)), closing=0.01)[:, 92:97].any()


def test_small_holes_are_filled_and_large_ones_stay():
    mask = drawn((10, 10, 80, 180))
    mask[20:24, 20:24] = 0  # 16 pixels
    mask[40:60, 40:60] = 0  # 400
    filled = after(mask, hole_area=20 / mask.size)
    assert filled[20:24, 20:24].all() and not filled[40:60, 40:60].any()


def test_small_components_go_by_their_share_of_the_photo():
    mask = drawn((10, 10, 3, 3), (50, 50, 10, 10))
    assert np.array_equal(after(mask, min_area=10 / mask.size), drawn((50, 50, 10, 10)))
    assert np.array_equal(after(mask, min_area=9 / mask.size), mask)
    assert not after(mask, min_area=1.0).any()


def test_pieces_in_one_line_are_joined_at_their_own_width():
    mask = drawn((45, 5, 8, 70), (46, 95, 8, 100))
    joined = join_lines(mask, 25)
    (row,) = measure(joined).itertuples()
    assert row.length == pytest.approx(190, abs=4) and row.width_median == pytest.approx(8, abs=1)
    assert np.array_equal(join_lines(mask, 15), mask)  # too far


@pytest.mark.parametrize(
    "other",
    [
        (70, 95, 8, 100),  # beside the line
        (20, 80, 75, 8),  # across it
        (42, 85, 14, 14),  # a patch
    ],
)
def test_what_is_in_no_line_is_not_joined(other):
    mask = drawn((45, 5, 8, 70), other)
    assert np.array_equal(join_lines(mask, 30), mask)


def test_three_pieces_become_one_and_each_end_is_used_once():
    mask = drawn((45, 5, 6, 50), (45, 70, 6, 50), (45, 135, 6, 60))
    assert len(measure(join_lines(mask, 20))) == 1
    fork = drawn((45, 5, 6, 70), (41, 90, 6, 100), (49, 90, 6, 100))  # two that face the same end
    assert len(measure(join_lines(fork, 20))) == 2


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24)),
    st.builds(PostProcessing, *[st.sampled_from((0.0, 0.03, 0.1, 0.5, 1.0))] * 5, st.sampled_from(BOXES)),
)
def test_whatever_the_mask_and_the_steps_it_stays_a_mask(inside, steps):
    mask = inside.astype(np.uint8) * np.uint8(255)
    before = mask.copy()
    result = postprocess(mask, steps)
    assert result.shape == mask.shape and result.dtype == np.uint8 and np.isin(result, (0, 255)).all()
    assert np.array_equal(mask, before)


def test_in_a_large_photo_gaps_are_joined_as_in_a_small_one():
    small = drawn((45, 5, 8, 70), (46, 95, 8, 100))
    large = np.kron(small, np.ones((20, 20), np.uint8))
    assert max(large.shape) > 2 * JOIN_SIDE
    joined, wanted = join_lines(large, 500) > 0, np.kron(join_lines(small, 25), np.ones((20, 20), np.uint8)) > 0
    assert (joined & wanted).sum() > 0.97 * (joined | wanted).sum()  # the small one draws in pixels 20 times as large
    assert (joined | (large == 0)).all()
    assert np.array_equal(join_lines(large, 300), large)


def test_a_large_mask_is_cleaned_as_a_small_one():
    rng = np.random.default_rng(3)
    small = (rng.random((90, 120)) < 0.55).astype(np.uint8) * np.uint8(255)
    steps = {"hole_area": 3 / small.size, "min_area": 30 / small.size}
    large = np.kron(small, np.ones((12, 12), np.uint8))  # more rows than are counted at once
    assert np.array_equal(after(large, **steps), np.kron(after(small, **steps), np.ones((12, 12), np.uint8)))


def test_components_become_the_rectangles_around_them():
    mask = drawn((10, 10, 5, 40), (15, 10, 30, 6), (70, 150, 1, 1))
    assert np.array_equal(fill_boxes(mask, turned=False), drawn((10, 10, 35, 40), (70, 150, 1, 1)))
    assert np.array_equal(after(mask, boxes="axis-aligned"), fill_boxes(mask, turned=False))


@pytest.mark.parametrize("angle", [0, 10, 30, 45, 60, 80, 90, 135])
def test_a_turned_rectangle_fits_a_turned_band(angle):
    band = Image.fromarray(drawn((90, 40, 30, 320), shape=(200, 400))).rotate(angle, expand=True)
    mask = (np.asarray(band) > 0).astype(np.uint8) * np.uint8(255)
    eaten = mask.copy()
    y, x = np.nonzero(mask)
    inner = np.random.default_rng(1).choice(len(y), len(y) // 4, replace=False)
    eaten[y[inner], x[inner]] = 0
    turned = after(eaten, boxes="turned") > 0
    assert (turned & (mask > 0)).sum() / (turned | (mask > 0)).sum() > 0.9
    upright = after(eaten, boxes="axis-aligned") > 0
    assert angle % 90 == 0 or upright.sum() > 1.5 * turned.sum()


def test_the_smallest_rectangle_beats_every_turn():
    rng = np.random.default_rng(2)
    for _ in range(20):
        points = rng.integers(0, 60, (12, 2))
        corners = _smallest_rectangle(points)
        sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
        area = sides[0] * sides[1]
        for angle in np.radians(np.arange(0, 90, 0.5)):
            turned = points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            assert area <= np.prod(np.ptp(turned, axis=0)) + 1e-6
    assert np.array_equal(np.unique(_smallest_rectangle(np.array([(3, 4), (9, 4)])), axis=0), [(3, 4), (9, 4)])


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match="boxes is 'round'"):
        PostProcessing(boxes="round")
    with pytest.raises(ValueError, match="min_area is 20, not a share"):
        PostProcessing(min_area=20)
