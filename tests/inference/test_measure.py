import numpy as np
import pytest

from drywall_seg.inference.measure import (
    COLUMNS,
    components,
    measure,
    scale_of,
    scale_of_points,
    scale_of_rectangle,
    width_class,
)
from drywall_seg.inference.trace import trace


def grid(size=700, shift=(0.3, 0.7)):
    """Pixel centres, x and y from the middle of the picture."""
    y, x = np.mgrid[:size, :size].astype(float)
    return x - size / 2 - shift[0], y - size / 2 - shift[1]


def band(x, y, length, width, angle, start=None):
    """A straight band with square ends, from its middle or from one end on, turned counter-clockwise."""
    along = np.cos(np.radians(angle)) * x - np.sin(np.radians(angle)) * y
    across = np.sin(np.radians(angle)) * x + np.cos(np.radians(angle)) * y
    first = -length / 2 if start is None else start
    return (along >= first) & (along <= first + length) & (np.abs(across) <= width / 2)


@pytest.mark.parametrize("width", [3, 4, 5, 8, 15, 25, 40])
@pytest.mark.parametrize("angle", [0, 8, 27, 44, 63, 90, 135.5])
def test_straight(width, angle):
    (row,) = measure(band(*grid(), 300, width, angle)).itertuples()
    assert row.length == pytest.approx(300, rel=0.01) and row.total_length == pytest.approx(300, rel=0.01)
    assert row.width_median == pytest.approx(width, abs=0.35)
    assert row.area_over_length == pytest.approx(row.width_median, abs=0.5)
    assert min(abs(row.orientation - angle), 180 - abs(row.orientation - angle)) < 1
    ends = {(round(row.x0), round(row.y0)), (round(row.x1), round(row.y1))}
    dx, dy = 150 * np.cos(np.radians(angle)), -150 * np.sin(np.radians(angle))
    for end in ((350.3 + dx, 350.7 + dy), (350.3 - dx, 350.7 - dy)):
        assert min(np.hypot(x - end[0], y - end[1]) for x, y in ends) < 4


def test_any_angle_width_and_phase():
    rng = np.random.default_rng(3)
    for _ in range(60):
        width, angle = rng.integers(3, 41), rng.uniform(0, 180)
        length = rng.uniform(max(100, 4 * width), 500)
        (row,) = measure(band(*grid(shift=rng.uniform(0, 1, 2)), length, width, angle)).itertuples()
        assert row.length == pytest.approx(length, rel=0.03), (width, angle)
        assert row.width_median == pytest.approx(width, abs=0.5), (width, angle)


def test_a_band_at_45_degrees_is_as_wide_as_its_pixels_make_it():
    for width in range(3, 41):  # rows of pixels lie .707 apart there, so that it cannot be drawn exactly
        mask = band(*grid(), 300, width, 45)
        (row,) = measure(mask).itertuples()
        assert row.width_median == pytest.approx(mask.sum() / 300, abs=0.5)
        assert row.length == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize("width", [3, 6, 12, 25, 40])
@pytest.mark.parametrize("radius", [100, 250])
def test_curved(width, radius):
    x, y = grid()
    turn = np.degrees(np.arctan2(-y, x)) % 360
    mask = (np.abs(np.hypot(x, y) - radius) <= width / 2) & (turn >= 20) & (turn <= 220)
    (row,) = measure(mask).itertuples()
    assert row.length == pytest.approx(radius * np.radians(200), rel=0.03)
    assert row.width_median == pytest.approx(width, abs=0.5)


@pytest.mark.parametrize("width", [3, 5, 10, 20])
def test_branching(width):
    arms = [(0, 220), (130, 180), (235, 140)]
    mask = np.any([band(*grid(), length, width, angle, start=0) for angle, length in arms], axis=0)
    (row,) = measure(mask).itertuples()
    assert row.total_length == pytest.approx(220 + 180 + 140, rel=0.03)
    assert row.length == pytest.approx(220 + 180, rel=0.03)
    assert row.width_median == pytest.approx(width, abs=0.5)
    lines, ends, _ = trace(np.pad(mask, 2))
    assert len(lines) == 3 and len(ends) == 3


def test_crossing_joints():
    x, y = grid()
    mask = band(x, y, 500, 12, 3) | band(x, y - 40, 400, 12, 92)
    (row,) = measure(mask).itertuples()
    assert row.total_length == pytest.approx(900, rel=0.03)
    assert row.width_median == pytest.approx(12, abs=0.5)
    assert len(trace(np.pad(mask, 2))[1]) == 4


def test_a_ring_is_measured_all_the_way_round():
    x, y = grid()
    mask = np.abs(np.hypot(x, y) - 150) <= 4
    (row,) = measure(mask).itertuples()
    assert row.total_length == pytest.approx(2 * np.pi * 150, rel=0.03)
    assert row.width_median == pytest.approx(8, abs=0.5)


def test_components_are_told_apart_and_the_largest_comes_first():
    x, y = grid()
    table = measure(band(x, y - 100, 200, 6, 10) | band(x, y + 100, 300, 9, 170))
    assert table.component.tolist() == [1, 2] and table.columns.tolist() == COLUMNS
    assert table.length.tolist() == pytest.approx([300, 200], rel=0.02)


def test_components_have_the_numbers_of_the_table():
    mask = np.zeros((40, 60), np.uint8)
    for number, (top, left, area) in enumerate([(3, 3, (2, 9)), (20, 5, (4, 30)), (10, 30, (5, 9))]):
        mask[top : top + area[0], left : left + area[1]] = 50 + number
    labelled = components(mask)
    areas = [np.count_nonzero(labelled == number) for number in (1, 2, 3)]
    assert areas == [120, 45, 18] == measure(mask).area.tolist() and labelled.max() == 3
    assert [labelled[21, 6], labelled[11, 31], labelled[3, 3], labelled[0, 0]] == [1, 2, 3, 0]
    assert [labelled[round(row.y), round(row.x)] for row in measure(mask).itertuples()] == [1, 2, 3]
    assert not components(np.zeros((4, 5), np.uint8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 7), (40, 40), (3, 3)])
def test_specks_and_blobs_have_a_row_and_no_made_up_width(shape):
    mask = np.zeros((60, 60), np.uint8)
    mask[10 : 10 + shape[0], 10 : 10 + shape[1]] = 255
    (row,) = measure(mask).itertuples()
    assert row.area == shape[0] * shape[1] and row.length <= 1.5 * max(shape)


def test_nothing_and_everything():
    assert len(measure(np.zeros((20, 30), np.uint8))) == 0
    assert measure(np.zeros((20, 30), np.uint8)).columns.tolist() == COLUMNS
    assert len(measure(np.ones((20, 30), np.uint8))) == 1


def test_widths_that_cannot_be_resolved_are_marked():
    x, y = grid()
    assert [bool(measure(band(x, y, 200, width, 20)).resolvable[0]) for width in (2, 5)] == [False, True]


def test_millimetres_of_a_straight_photo():
    mask = band(*grid(), 300, 10, 20)
    pixels, millimetres = measure(mask), measure(mask, scale_of(0.5))
    for name in ("length", "total_length", "width_median", "width_max"):
        assert millimetres[name][0] == pytest.approx(0.5 * pixels[name][0])
    assert millimetres.area[0] == pytest.approx(0.25 * pixels.area[0])
    assert millimetres.x0[0] == pixels.x0[0] and millimetres.resolvable[0]


@pytest.mark.parametrize("tilt", [(0, 0), (30, 0), (0, 30), (-20, 22), (29, 5)])
def test_millimetres_of_a_tilted_wall(tilt):
    """A wall 2 m away, turned about both axes, with a sheet of A4 paper on it and a joint of 700 x 30 mm."""
    a, b = np.radians(tilt)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    camera = np.column_stack([turn[:, 0], turn[:, 1], [0, 0, 2000]])
    wall_to_photo = np.array([[1200, 0, 500], [0, 1200, 500], [0, 0, 1]]) @ camera

    def project(points):
        moved = np.column_stack([points, np.ones(len(points))]) @ wall_to_photo.T
        return moved[:, :2] / moved[:, 2:]

    y, x = np.mgrid[:1000, :1000]
    back = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)]) @ np.linalg.inv(wall_to_photo).T
    wall = back[:, :2] / back[:, 2:]
    mask = band(wall[:, 0], wall[:, 1], 700, 30, 25).reshape(x.shape)
    corners = project(np.array([(-200, -150), (97, -150), (97, 60), (-200, 60)]))
    (row,) = measure(mask, scale_of_rectangle(corners, 297, 210)).itertuples()
    assert row.length == pytest.approx(700, rel=0.03)
    assert row.width_median == pytest.approx(30, rel=0.03)
    assert row.area == pytest.approx(700 * 30, rel=0.03)


@pytest.mark.parametrize("corners", [[(0, 0), (1, 0), (2, 0), (3, 0)], [(0, 0), (9, 9), (9, 0), (0, 9)], [(5, 5)] * 4])
def test_corners_that_are_none(corners):
    with pytest.raises(ValueError, match="are not those of a rectangle"):
        scale_of_rectangle(np.array(corners, float), 100, 100)


@pytest.mark.parametrize("corners", [[(3, 5), (90, 9), (80, 77), (11, 60)], [(0, 0), (0, 9), (20, 9), (20, 0)]])
def test_the_corners_of_a_rectangle_come_to_their_places(corners):
    scale = scale_of_rectangle(np.array(corners), 297, 210)
    wall = [(0, 0), (297, 0), (297, 210), (0, 210)]
    assert np.allclose(scale(np.array(corners, float)), wall, atol=1e-6)
    assert np.allclose(scale(np.array([corners[2]], float)), [(297, 210)], atol=1e-6)


def test_beyond_the_horizon_there_is_no_length():
    scale = scale_of_rectangle(np.array([(40, 50), (60, 50), (90, 90), (10, 90)], float), 100, 100)
    near, far = scale(np.array([(50.0, 60.0), (50.0, 0.0)]))
    assert np.isfinite(near).all() and np.isnan(far).all()


def test_millimetres_of_two_points():
    assert scale_of_points((10, 10), (10, 210), 100)(np.array([4.0, 6.0])).tolist() == [2, 3]
    with pytest.raises(ValueError, match="are not two"):
        scale_of_points((5, 5), (5, 5), 100)


@pytest.mark.parametrize("mm", [0, -1, float("nan"), float("inf")])
def test_lengths_that_are_none(mm):
    square = np.array([(0, 0), (9, 0), (9, 9), (0, 9)])
    for make in (
        lambda: scale_of(mm),
        lambda: scale_of_points((0, 0), (1, 1), mm),
        lambda: scale_of_rectangle(square, mm, 10),
        lambda: scale_of_rectangle(square, 10, mm),
    ):
        with pytest.raises(ValueError, match="is no length above 0"):
            make()


def test_classes():
    assert [width_class(w) for w in (0.1, 0.11, 1, 5, 15, 25, 26)] == [
        "hairline", "fine", "fine", "slight", "moderate", "severe", "very severe"
    ]  # fmt: skip
    assert [width_class(w, {"small": 2, "large": 4}) for w in (2, 3, 5)] == ["small", "large", "large"]
