import numpy as np
import pandas as pd
import pytest

from drywall_seg.inference.measure import BRE_251
from drywall_seg.visualization.site_words import classes_of, sum_text, width_text

NAN = float("nan")


@pytest.mark.parametrize(
    ("width", "unit", "resolvable", "text"),
    [
        (0.123, "mm", True, "0.12 mm"),
        (4.26, "mm", True, "4.3 mm"),
        (7.0, "px", True, "7.0 px"),
        (2.0, "px", False, "under 3 px"),
        (NAN, "mm", False, "too short"),
    ],
)
def test_widths(width, unit, resolvable, text):
    assert width_text({"width_median": width, "unit": unit, "resolvable": resolvable}) == text


def test_millimetres_and_pixels_are_not_added():
    table = pd.DataFrame({"unit": ["px", "mm", "mm", "px"], "length": [1200.0, 800.0, 400.0, 34.4]})
    assert sum_text(table) == "1.20 m and 1\N{NO-BREAK SPACE}234 px"
    assert sum_text(table[:0]) == "0 px"
    assert sum_text(table.assign(length=[1.0, NAN, 2.0, 3.0])) == "cannot be told and 4.0 px"


def test_classes_are_counted_by_sentence_and_unit():
    findings = pd.DataFrame(
        [
            ("crack", "a", "mm", "fine", 100.0),
            ("crack", "a", "mm", "fine", 50.0),
            ("crack", "a", "mm", "very severe", 7.0),
            ("crack", "a", "px", "over 24 px", 9.0),
            ("joint_line", "b", "mm", "", 999.0),
        ],
        columns=["label", "prompt", "unit", "severity", "total_length"],
    )
    metric, pixels = classes_of(findings, BRE_251)
    assert (metric["prompt"], metric["unit"], pixels["unit"]) == ("a", "mm", "px")
    rows = {row["name"]: (row["limit"], row["n"], row["length"]) for row in metric["rows"]}
    assert rows["fine"] == ("0.1 to 1 mm", 2, "150 mm")
    assert rows["very severe"] == ("over 25 mm", 1, "7.0 mm") and rows["hairline"] == ("up to 0.1 mm", 0, "")
    assert list(rows)[0] == "very severe" and sum(n for _, n, _ in rows.values()) == 3
    assert [row["n"] for row in pixels["rows"]] == [1, 0, 0, 0, 0, 0]
    assert classes_of(findings[:0], {"all": np.inf}) == []
