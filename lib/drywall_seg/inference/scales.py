"""Scales and classes as they are typed: millimetres per pixel, two points, a rectangle, or a table of them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from drywall_seg.inference.measure import Scale, scale_of, scale_of_points, scale_of_rectangle

FORMS = {
    "mm_per_pixel": ("mm",),
    "two_points": ("x0", "y0", "x1", "y1", "mm"),
    "rectangle": ("x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3", "width_mm", "height_mm"),
}
"""The numbers that each form of a scale consists of."""


def parse_scale(form: str, text: str) -> Scale:
    """Reads a scale in one of `FORMS` from its numbers, with commas between.

    >>> parse_scale("two_points", "0,0,30,40,100")(np.array([7, 1]))
    array([14.,  2.])

    Raises:
        ValueError: If they are not as many, or give no scale; the message has the form and the text.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) != len(FORMS[form]) or not all(map(math.isfinite, numbers)):
            raise ValueError(f"it takes {','.join(FORMS[form])}; decimals have a point")
        if form == "mm_per_pixel":
            return scale_of(*numbers)
        if form == "two_points":
            return scale_of_points(numbers[:2], numbers[2:4], numbers[4])
        return scale_of_rectangle(np.reshape(numbers[:8], (4, 2)), *numbers[8:])
    except ValueError as error:
        raise ValueError(f"{form} {text!r}: {error}") from error


def read_scales(file: Path | str) -> dict[str, Scale]:
    """Reads a scale for each photo from a CSV with the column `photo` and one or more of `FORMS`.

    Returns:
        The scales by photo, which is named as below the folder that is inspected.

    Raises:
        ValueError: If a column is missing, a photo stands there twice, or a row has not just one scale.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:  # an empty file, other bytes than text
        raise ValueError(f"{file}: cannot be read as a table ({error})") from error
    forms = [name for name in table.columns if name in FORMS]
    if "photo" not in table.columns or not forms:
        raise ValueError(
            f"{file}: has the columns {', '.join(table.columns)}; needs photo and one of {', '.join(FORMS)}"
        )
    scales: dict[str, Scale] = {}
    for row in table.to_dict("records"):
        given = [(form, row[form]) for form in forms if row[form].strip()]
        if row["photo"] in scales or len(given) != 1:
            trouble = "stands there twice" if row["photo"] in scales else f"has {len(given)} scales, not one"
            raise ValueError(f"{file}: {row['photo']!r} {trouble}")
        try:
            scales[row["photo"]] = parse_scale(*given[0])
        except ValueError as error:
            raise ValueError(f"{file}: {row['photo']!r}: {error}") from error
    return scales


def choose_scale(
    mm_per_pixel: str | None = None,
    two_points: str | None = None,
    rectangle: str | None = None,
    scales: Path | str | None = None,
) -> Scale | dict[str, Scale] | None:
    """Returns the one scale that is given for all photos, or those of a table by photo; None without any.

    Raises:
        ValueError: If more than one is given, or it cannot be read.
    """
    texts = {"mm_per_pixel": mm_per_pixel, "two_points": two_points, "rectangle": rectangle, "scales": scales}
    given = {name: value for name, value in texts.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; one scale is enough")
    if scales is not None:
        return read_scales(scales)
    return next((parse_scale(form, text) for form, text in given.items()), None)


def parse_limits(text: str) -> dict[str, float]:
    """Reads the classes of a crack's width, by the widest of each in mm; the last takes all that is wider.

    >>> parse_limits("hair=0.2, small=2, large=inf")
    {'hair': 0.2, 'small': 2.0, 'large': inf}

    Raises:
        ValueError: If it is not `name=mm,name=mm,...` with rising numbers.
    """
    try:
        pairs = [(name.strip(), float(limit)) for name, limit in (part.split("=") for part in text.split(","))]
    except ValueError as error:
        raise ValueError(f"limits {text!r}: not name=mm,name=mm,...") from error
    widths = [0.0, *(limit for _, limit in pairs)]
    if not all(a < b for a, b in zip(widths, widths[1:], strict=False)) or len(dict(pairs)) < len(pairs):
        raise ValueError(f"limits {text!r}: names must differ and millimetres rise from above 0")
    return dict(pairs)
