"""The numbers of an inspected folder as a reader wants them: in words, with their units."""

import math
from typing import Any

import pandas as pd

from drywall_seg.inference.findings import PIXELS, TOO_SHORT, UNRESOLVED, rank_of, shown
from drywall_seg.inference.site import Site

THINGS = {"crack": "crack", "taping_area": "taping area", "joint_line": "joint line"}


def length_text(value: float, unit: str) -> str:
    """Writes a length of a line.

    >>> length_text(3.25, "mm"), length_text(340, "mm"), length_text(12340, "mm"), length_text(12340.4, "px")
    ('3.2 mm', '340 mm', '12.34 m', '12 340 px')
    """
    if math.isnan(value):
        return "cannot be told"
    if unit == "mm" and value >= 1000:
        return f"{value / 1000:.2f} m"
    digits = 1 if value < 10 else 0
    return f"{value:,.{digits}f} {unit}".replace(",", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}", " ")


def width_text(row: dict[str, Any]) -> str:
    """Writes a finding's median width, or why there is none."""
    if math.isnan(row["width_median"]):
        return TOO_SHORT
    if not row["resolvable"]:
        return UNRESOLVED
    digits = 2 if row["unit"] == "mm" and row["width_median"] < 1 else 1
    return f"{row['width_median']:.{digits}f} {row['unit']}"
