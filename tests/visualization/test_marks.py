import numpy as np
import pytest

from drywall_seg.inference.findings import SHOWN, inspect_photo
from drywall_seg.visualization.marks import STYLES, _dashed, _place, draw_findings
from tests.inference.channels import PROMPTS, SURE, Channels, photo

COLORS = {label: tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for label, (color, _) in STYLES.items()}


def drawn(*bars, side=1200, size_hw=(800, 1200)):
    """Draws what the bars stand for over grey, with the findings."""
    findings, _, masks = inspect_photo(Channels(), photo(*bars, size_hw=size_hw), PROMPTS)
    grey = np.full((*size_hw, 3), 128, np.uint8)
    return np.asarray(draw_findings(grey, findings, masks, side)).astype(int), findings


def near(picture, color, tolerance=60):
    return np.abs(picture - color).sum(axis=2) < tolerance


def test_a_crack_has_a_line_round_it_and_stays_to_be_seen():
    picture, _ = drawn((0, SURE, slice(200, 206), slice(100, 500)), side=600, size_hw=(400, 640))
    assert picture.shape[:2] == (375, 600)
    line = near(picture, COLORS["crack"])
    scale = 600 / 640
    top, bottom = round(200 * scale), round(206 * scale)
    columns = slice(round(150 * scale), round(250 * scale))  # away from its number, which is at the middle
    assert (np.abs(picture[top + 1 : bottom - 1, columns] - 128) < 8).all()
    assert line[top - 8 : top, columns].any(axis=0).all() and line[bottom : bottom + 8, columns].any(axis=0).all()
    assert not line[: top - 12, columns].any()


def test_joints_and_areas_have_broken_lines_in_their_own_colours():
    for channel, label in ((1, "taping_area"), (2, "joint_line")):
        picture, _ = drawn((channel, SURE, slice(400, 480), slice(100, 1100)))
        columns = near(picture, COLORS[label], 120)[380:400, 150:400].any(axis=0)
        assert 0.2 < columns.mean() < 0.9 and np.abs(np.diff(columns.astype(int))).sum() > 10
        assert not near(picture, COLORS["crack"], 120).any()


def test_numbers_stand_in_white_boxes_within_the_picture():
    bars = [(0, SURE, slice(4 + 30 * i, 10 + 30 * i), slice(0, 30)) for i in range(12)]
    picture, findings = drawn(*bars)
    assert len(findings) == 12
    unit = 1200 / 400
    white = (picture.min(axis=2) > 240).sum()
    box = 1.35 * 13 * unit * (0.6 * 13 * unit + 7 * unit)
    assert SHOWN * 0.3 * box < white < 2.5 * SHOWN * box
    plain, _ = drawn()
    assert (plain == 128).all()


def test_boxes_do_not_lie_on_each_other_nor_on_marks_where_there_is_room():
    filled = np.zeros((400, 600), np.int32)
    filled[:, 300:] = 1
    boxes = []
    for _ in range(6):
        boxes.append(
            _place(np.array([290.0, 200.0]), np.array([20.0, 14.0]), boxes, filled.cumsum(0).cumsum(1), unit=1.0)
        )
    for number, a in enumerate(boxes):
        assert a[2] <= 301 and all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[:number])
    left, top, right, bottom = _place(np.array([0.0, 0.0]), np.array([20.0, 14.0]), [], filled, 1.0)
    assert left >= 0 and top >= 0 and (right - left, bottom - top) == (20, 14)


def test_dashes_are_as_long_as_they_should_be():
    line = np.array([[0.0, 0.0], [60.0, 0.0], [60.0, 45.0]])
    pieces = _dashed(line, [10, 5])
    lengths = [np.linalg.norm(np.diff(piece, axis=0), axis=1).sum() for piece in pieces]
    assert len(pieces) == 7 and np.allclose(lengths, 10, atol=2)
    assert pieces[0][0].tolist() == [0, 0] and pieces[1][0].tolist() == [15, 0]


@pytest.mark.parametrize(
    ("size_hw", "side", "shown"),
    [
        ((100, 200), 1200, (320, 640)),
        ((100, 200), 320, (160, 320)),
        ((3000, 1500), 1000, (1000, 500)),
        ((1, 900), 320, (1, 320)),
    ],
)
def test_sizes(size_hw, side, shown):
    picture = draw_findings(np.zeros((*size_hw, 3), np.uint8), inspect_photo(Channels(), photo(), PROMPTS)[0], {}, side)
    assert picture.size[::-1] == pytest.approx(shown, abs=1)


def test_the_thinnest_line_of_a_large_photo_is_drawn():
    picture, _ = drawn((0, SURE, slice(900, 901), slice(500, 2500)), size_hw=(2000, 3000), side=320)
    assert near(picture, COLORS["crack"], 120).sum() > 300


def test_a_mask_over_all_of_the_photo():
    picture, findings = drawn((1, SURE, slice(None), slice(None)))
    assert len(findings) == 1 and (picture.min(axis=2) > 240).sum() > 500
