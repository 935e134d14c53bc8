"""Lengths and widths of what a mask shows: per component, in pixels and, where the scale is known, in millimetres."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects, label
from skimage.transform import ProjectiveTransform

from drywall_seg.inference.trace import Line, trace

Scale = Callable[[np.ndarray], np.ndarray]
"""Maps points (N, 2), x and y in pixels, to millimetres on the wall."""

RESOLVABLE = 3.0
"""Pixels under which a width says little more than that there is something."""
EIGHT = np.ones((3, 3), bool)

BRE_251 = {
    "hairline": 0.1, "fine": 1.0, "slight": 5.0, "moderate": 15.0, "severe": 25.0, "very severe": np.inf,
}  # fmt: skip
"""Widest crack of each class in millimetres (Building Research Establishment, Digest 251, 1995)."""

COLUMNS = (
    "component area length total_length width_median width_p95 width_max area_over_length orientation "
    "x0 y0 x1 y1 resolvable".split()
)


def measure(mask: np.ndarray, scale: Scale | None = None) -> pd.DataFrame:
    """Measures each component of a mask.

    Lengths run along the skeleton, smoothed (a chain of pixels is up to 8 % too long) and drawn out to the mask's ends.
    Widths are cross-sections of the smoothed mask, to fractions of a pixel, away from ends and crossings.

    Args:
        mask: (H, W), target where above 0.
        scale: To millimetres; None measures in pixels.

    Returns:
        A row for each component, largest first, with `COLUMNS`: area (px, or mm2), length along the longest path, of
        all branches together, widths (median, 95th percentile, largest; NaN where nothing is long enough to have a
        cross-section), area over total length, to check them by, orientation of the line from end to end in degrees
        [0, 180), counter-clockwise from the x axis, the ends in pixels, and resolvable: whether the median width is
        at least 3 pixels. No rows for an empty mask.
    """
    rows = []
    labelled, _ = label(mask > 0, EIGHT)
    for number, window in enumerate(find_objects(labelled), 1):
        top, left = window[0].start - 2, window[1].start - 2
        padded = np.pad(labelled[window] == number, 2)
        lines, ends, longest = trace(padded)
        lines = [Line(*(points + (left, top) for points in line)) for line in lines]
        longest, ends = longest + (left, top), ends + (left, top)
        rows.append(_row(np.count_nonzero(padded), lines, longest, padded, (left, top), scale))
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values("area", ascending=False, ignore_index=True)
    return table.assign(component=range(1, len(table) + 1))


def _row(area, lines, longest, inside, corner, scale):
    def to(points):
        return scale(points) if scale else points

    def length(points):
        return float(np.linalg.norm(np.diff(to(points), axis=0), axis=1).sum())

    total = sum(length(line.points) for line in lines)
    left, right = (np.concatenate([getattr(line, side) for line in lines]) for side in ("left", "right"))
    pixels = np.linalg.norm(left - right, axis=1)
    widths = np.linalg.norm(to(left) - to(right), axis=1)
    some = len(widths) > 0
    if scale:
        area = _scaled_area(inside, corner, scale)
    (x0, y0), (x1, y1) = longest[0], longest[-1]
    return {
        "component": 0,
        "area": area,
        "length": length(longest),
        "total_length": total,
        "width_median": np.median(widths) if some else np.nan,
        "width_p95": np.percentile(widths, 95) if some else np.nan,
        "width_max": widths.max() if some else np.nan,
        "area_over_length": area / total if total else np.nan,
        "orientation": np.degrees(np.arctan2(y0 - y1, x1 - x0)) % 180,
        "x0": x0, "y0": y0, "x1": x1, "y1": y1,
        "resolvable": bool(some and np.median(pixels) >= RESOLVABLE),
    }  # fmt: skip


def _scaled_area(inside: np.ndarray, corner: tuple[int, int], scale: Scale) -> float:
    """Adds up what each pixel covers, by the parallelogram that its sides become."""
    y, x = np.nonzero(inside)
    points = np.column_stack([x, y]) + corner
    right, down = (scale(points + half) - scale(points - half) for half in ((0.5, 0), (0, 0.5)))
    return float(np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]).sum())


def scale_of(mm_per_pixel: float) -> Scale:
    """Returns the scale of a photo that was taken straight on."""
    return lambda points: points * mm_per_pixel


def scale_of_rectangle(corners: np.ndarray, width_mm: float, height_mm: float) -> Scale:
    """Returns the scale of a wall from a rectangle on it, perspective corrected.

    Args:
        corners: (4, 2), x and y in pixels: upper left, upper right, lower right, lower left.
        width_mm: Of the rectangle.
        height_mm: Likewise.

    Raises:
        ValueError: If the corners lie on one line, or cross.
    """
    wall = np.array([(0, 0), (width_mm, 0), (width_mm, height_mm), (0, height_mm)], float)
    turns = [np.cross(*(np.roll(corners, -n, 0)[1:3] - np.roll(corners, -n, 0)[:2])) for n in range(4)]
    if min(turns) * max(turns) <= 0 or min(map(abs, turns)) < 1:
        raise ValueError(f"the corners {np.asarray(corners).tolist()} are not those of a rectangle, in order")
    transform = ProjectiveTransform()
    transform.estimate(np.asarray(corners, float), wall)
    return transform


def width_class(width_mm: float) -> str:
    """Returns the class of a crack by its width, as BRE Digest 251 draws the limits.

    >>> width_class(0.05), width_class(3), width_class(40)
    ('hairline', 'slight', 'very severe')
    """
    return next(name for name, limit in BRE_251.items() if width_mm <= limit)
