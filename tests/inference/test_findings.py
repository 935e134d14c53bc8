import subprocess
import sys

import numpy as np
import pytest

from drywall_seg.inference.findings import FINDINGS, PIXELS, SHOWN, TOO_SHORT, UNRESOLVED, inspect_photo, rank_of, shown
from drywall_seg.inference.measure import BRE_251, scale_of, scale_of_rectangle
from tests.inference.channels import PROMPTS, SURE, VAGUE, Channels, photo

CRACK, TAPE, JOINT = PROMPTS
LONG = (0, SURE, slice(50, 60), slice(20, 220))
WIDE = (0, SURE, slice(100, 130), slice(20, 120))
THIN = (0, SURE, slice(150, 152), slice(20, 270))
SPECK = (0, VAGUE, slice(190, 192), slice(280, 282))


def test_each_finding_has_its_size_its_class_and_its_place():
    findings, totals, masks = inspect_photo(Channels(), photo(LONG, WIDE, THIN, SPECK), [CRACK])
    assert findings.columns.tolist() == FINDINGS and findings.number.tolist() == [1, 2, 3, 4]
    assert findings.severity.tolist() == ["over 24 px", "6 to 12 px", UNRESOLVED, TOO_SHORT]
    assert findings.width_median[:2].tolist() == pytest.approx([30, 10], abs=0.5)
    assert findings.total_length[:3].tolist() == pytest.approx([100, 200, 250], rel=0.03)
    assert findings.resolvable.tolist() == [True, True, False, False] and set(findings.unit) == {"px"}
    assert findings["where"].tolist() == ["left", "top", "bottom", "bottom right"]
    assert findings.doubt.tolist() == [0, 0, 0, 1] and findings.disagreement.tolist() == [0, 0, 0, 0]
    assert findings.review.tolist() == [0, 0, 0.25, 1]
    assert np.array_equal(masks[CRACK] > 0, photo(LONG, WIDE, THIN, SPECK)[..., 0] > 0)
    assert list(totals) == list(masks) == [CRACK]


def test_millimetres_and_limits_of_ones_own():
    image = photo(LONG, WIDE)
    findings, totals, _ = inspect_photo(Channels(), image, [CRACK], scale_of(0.09))
    assert findings.severity.tolist() == ["slight", "fine"] and set(findings.unit) == {"mm"}
    assert findings.length.tolist() == pytest.approx([9, 18], rel=0.03)
    assert totals[CRACK]["severity"] == "slight" and totals[CRACK]["widest"] == pytest.approx(2.7, abs=0.05)
    findings, _, _ = inspect_photo(Channels(), image, [CRACK], scale_of(0.1), {"small": 2.0, "large": np.inf})
    assert findings.severity.tolist() == ["large", "small"]


def test_a_crack_that_widens_has_the_class_of_its_widest_part_too():
    image = photo((0, SURE, slice(50, 60), slice(20, 220)), (0, SURE, slice(40, 70), slice(220, 290)))
    (row,) = inspect_photo(Channels(), image, [CRACK])[0].itertuples()
    assert (row.severity, row.severity_p95) == ("6 to 12 px", "over 24 px")


def test_joints_have_runs_and_no_severity():
    image = photo((2, SURE, slice(95, 103), slice(20, 280)), (2, SURE, slice(10, 190), slice(145, 153)))
    findings, totals, _ = inspect_photo(Channels(), image, [JOINT, TAPE])
    (row,) = findings.itertuples()
    assert row.severity == "" and row.n_runs == 2 and row.runs == pytest.approx([260, 180], rel=0.03)
    assert totals[JOINT]["n_runs"] == 2 and totals[JOINT]["length"] == pytest.approx(440, rel=0.03)
    assert not totals[JOINT]["unmeasurable"]
    empty = totals[TAPE]
    assert (empty["n"], empty["length"], empty["area_share"], empty["review"]) == (0, 0, 0, 0)


def test_totals_by_hand():
    totals = inspect_photo(Channels(), photo(LONG, WIDE), [CRACK])[1][CRACK]
    assert totals["area_share"] == pytest.approx((2000 + 3000) / 60000)
    assert totals["density"] == pytest.approx(300 / 60000, rel=0.03)
    assert totals["n"] == 2 and (totals["height_px"], totals["width_px"]) == (200, 300)
    metric = inspect_photo(Channels(), photo(LONG, WIDE), [CRACK], scale_of(10.0))[1][CRACK]
    assert metric["area_share"] == pytest.approx(totals["area_share"])
    assert metric["density"] == pytest.approx(3.0 / (3.0 * 2.0), rel=0.03)  # 3 m of crack on 3 m x 2 m


def test_the_horizon_leaves_the_density_open():
    corners = np.array([(140, 120), (160, 120), (200, 180), (100, 180)], float)  # its sides meet at row 105
    totals = inspect_photo(
        Channels(), photo((0, SURE, slice(150, 170), slice(120, 180))), [CRACK], scale_of_rectangle(corners, 500, 500)
    )[1][CRACK]
    assert totals["length"] > 0 and np.isnan(totals["density"]) and np.isnan(totals["area_share"])


def test_doubt_is_the_share_that_a_higher_threshold_loses():
    image = photo((0, SURE, slice(50, 60), slice(20, 170)), (0, VAGUE, slice(50, 60), slice(170, 220)))
    findings, totals, _ = inspect_photo(Channels(), image, [CRACK])
    assert findings.doubt.tolist() == [0.25] and totals[CRACK]["doubt"] == pytest.approx(0.25)
    assert findings.review.tolist() == [0.25]


def test_the_mirrored_photo_is_compared():
    # Of the mirrored photo all but the left 130 columns are missed: what lies left of column 170 is not found again.
    findings, totals, _ = inspect_photo(Channels(130), photo(LONG), [CRACK])
    assert findings.disagreement.tolist() == pytest.approx([150 / 200])
    assert totals[CRACK]["disagreement"] == pytest.approx(150 / 200)
    assert findings.review.tolist() == pytest.approx([150 / 400])
    predictor = Channels(130)
    findings, totals, _ = inspect_photo(predictor, photo(LONG), [CRACK], flips=False)
    assert predictor.calls == 1 and findings.disagreement.isna().all() and np.isnan(totals[CRACK]["disagreement"])
    assert findings.review.tolist() == [0] and totals[CRACK]["review"] == 0


def test_a_photo_whose_cracks_are_mostly_too_thin_is_unmeasurable():
    assert inspect_photo(Channels(), photo(THIN), [CRACK])[1][CRACK]["unmeasurable"]
    assert not inspect_photo(Channels(), photo(THIN, LONG, WIDE), [CRACK])[1][CRACK]["unmeasurable"]
    assert inspect_photo(Channels(), photo(THIN), [CRACK])[1][CRACK]["review"] == 0.25


def test_the_first_of_each_sentence_have_the_first_numbers():
    specks = [(0, SURE, slice(10, 14), slice(20 * i, 20 * i + 6 + i)) for i in range(10)]
    joints = [(2, SURE, slice(100 + 20 * i, 104 + 20 * i), slice(20, 200 + i)) for i in range(2)]
    findings, totals, _ = inspect_photo(Channels(), photo(*specks, *joints), [CRACK, JOINT])
    assert findings.number.tolist() == list(range(1, 13)) and totals[CRACK]["n"] == 10
    assert findings.label.tolist() == ["crack"] * SHOWN + ["joint_line"] * 2 + ["crack"] * 4
    first = shown(findings)
    assert first.number.tolist() == list(range(1, SHOWN + 3))
    lengths = findings.total_length[findings.label == "crack"]
    assert lengths.is_monotonic_decreasing


def test_nothing_found():
    findings, totals, masks = inspect_photo(Channels(), photo(), PROMPTS)
    assert findings.empty and findings.columns.tolist() == FINDINGS and len(shown(findings)) == 0
    assert [totals[prompt]["n"] for prompt in PROMPTS] == [0, 0, 0] and not any(m.any() for m in masks.values())
    assert findings.dtypes.equals(inspect_photo(Channels(), photo(), [CRACK])[0].dtypes)


def test_an_empty_mask_beside_a_full_one_keeps_numbers_numbers():
    findings, _, _ = inspect_photo(Channels(), photo(LONG), [TAPE, CRACK, JOINT])
    assert all(findings[name].dtype.kind in "fi" for name in ("length", "width_median", "doubt", "review", "area"))


def test_ranks_rise():
    names = ["", TOO_SHORT, UNRESOLVED]
    for classes in (BRE_251, PIXELS):
        ranks = [rank_of(name, BRE_251) for name in [*names, *classes]]
        assert ranks == list(range(-2, len(classes) + 1))


def test_no_torch_is_loaded():
    code = "import sys, drywall_seg.inference.site; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
