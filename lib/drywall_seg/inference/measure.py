"""Lengths and widths of what a mask shows: per component, in pixels and, where the scale is known, in millimetres."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.ndimage import find_objects

from drywall_seg.inference.crossings import straight_runs
from drywall_seg.inference.postprocess import EIGHT, label_areas
from drywall_seg.inference.trace import Line, trace

Scale = Callable[[np.ndarray], np.ndarray]
"""Maps points (N, 2), x and y in pixels, to millimetres on the wall."""

RESOLVABLE = 3.0
"""Pixels under which a width says little more than that there is something."""

BRE_251 = {
    "hairline": 0.1, "fine": 1.0, "slight": 5.0, "moderate": 15.0, "severe": 25.0, "very severe": np.inf,
}  # fmt: skip
"""Widest crack of each class in millimetres (Building Research Establishment, Digest 251, 1995)."""

COLUMNS = (
    "component area length total_length width_median width_p95 width_max area_over_length orientation "
    "x0 y0 x1 y1 x y resolvable runs".split()
)


def components(mask: np.ndarray) -> np.ndarray:
    """Numbers the components of a mask (H, W), int32: from 1, the one of the most pixels first; 0 is none."""
    labelled, areas = label_areas(mask > 0, EIGHT)
    numbers = np.zeros(len(areas), labelled.dtype)
    numbers[np.argsort(-areas[1:], kind="stable") + 1] = np.arange(1, len(areas))
    return numbers[labelled]


def measure(mask: np.ndarray, scale: Scale | None = None) -> pd.DataFrame:
    """Measures each component of a mask (H, W), target where above 0, in pixels or, by a scale, in millimetres.

    Lengths run along the skeleton, smoothed (a chain of pixels is up to 8 % too long) and drawn out to the mask's ends.
    Widths are cross-sections of the smoothed mask, to fractions of a pixel, away from ends and crossings.

    Returns:
        A row for each component, numbered as by `components`, with `COLUMNS`: area (px, or mm2), length along the
        longest path, of all branches together, widths (median, 95th percentile, largest; NaN where nothing is long
        enough to have a cross-section), area over total length, to check them by, orientation of the line from end to
        end in degrees [0, 180), counter-clockwise from the x axis, its ends and its middle in pixels, resolvable:
        whether the median width is at least 3 pixels, and the lengths of its straight runs, longest first. No rows for
        an empty mask.
    """
    rows = []
    labelled = components(mask)
    for number, window in enumerate(find_objects(labelled), 1):
        corner = np.array([window[1].start - 2, window[0].start - 2])
        inside = np.pad(labelled[window] == number, 2)
        lines, _, longest = trace(inside)
        lines = [Line(*(points + corner for points in line)) for line in lines]
        rows.append({"component": number} | _row(lines, longest + corner, inside, corner, scale))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(lines, longest, inside, corner, scale):
    def to(points):
        return scale(points) if scale else points

    def length(points):
        return float(np.linalg.norm(np.diff(to(points), axis=0), axis=1).sum())

    area = _scaled_area(inside, corner, scale) if scale else np.count_nonzero(inside)
    total = sum(length(line.points) for line in lines)
    left, right = (np.concatenate([getattr(line, side) for line in lines]) for side in ("left", "right"))
    pixels = np.linalg.norm(left - right, axis=1)
    widths = np.linalg.norm(to(left) - to(right), axis=1)
    some = len(widths) > 0
    runs = straight_runs([line.points for line in lines], np.median(pixels) if some else RESOLVABLE)
    (x0, y0), (x1, y1) = longest[0], longest[-1]
    return {
        "area": area,
        "length": length(longest),
        "total_length": total,
        "width_median": np.median(widths) if some else np.nan,
        "width_p95": np.percentile(widths, 95) if some else np.nan,
        "width_max": widths.max() if some else np.nan,
        "area_over_length": area / total if total else np.nan,
        "orientation": np.degrees(np.arctan2(y0 - y1, x1 - x0)) % 180,
        "x0": x0, "y0": y0, "x1": x1, "y1": y1, "x": longest[len(longest) // 2, 0], "y": longest[len(longest) // 2, 1],
        "resolvable": bool(some and np.median(pixels) >= RESOLVABLE),
        "runs": sorted(map(length, runs), reverse=True),
    }  # fmt: skip


def _scaled_area(inside: np.ndarray, corner: np.ndarray, scale: Scale) -> float:
    """Adds up what each pixel covers, by the parallelogram that its sides become."""
    points = np.argwhere(inside)[:, ::-1] + corner
    right, down = (scale(points + half) - scale(points - half) for half in ((0.5, 0), (0, 0.5)))
    return float(np.abs(right[:, 0] * down[:, 1] - right[:, 1] * down[:, 0]).sum())


def scale_of(mm_per_pixel: float) -> Scale:
    """Returns the scale of a photo that was taken straight on.

    Raises:
        ValueError: If it is not a length above 0.
    """
    _require_length(mm_per_pixel)
    return lambda points: points * mm_per_pixel


def scale_of_points(p: tuple[float, float], q: tuple[float, float], mm: float) -> Scale:
    """Returns the scale of a photo that was taken straight on, from two points (x, y) in pixels and their distance.

    >>> scale_of_points((0, 0), (30, 40), 100)(np.array([7, 1]))
    array([14.,  2.])

    Raises:
        ValueError: If the points are one, or the distance is not a length above 0.
    """
    _require_length(mm)
    pixels = float(np.hypot(p[0] - q[0], p[1] - q[1]))
    if not pixels > 0:
        raise ValueError(f"the points {tuple(p)} and {tuple(q)} are not two")
    return scale_of(mm / pixels)


def scale_of_rectangle(corners: np.ndarray, width_mm: float, height_mm: float) -> Scale:
    """Returns the scale of a wall from a rectangle on it, perspective corrected; beyond the horizon it gives NaN.

    Its corners (4, 2) are x and y in pixels: upper left, upper right, lower right, lower left.

    Raises:
        ValueError: If the corners lie on one line, or cross, or a side is not a length above 0.
    """
    _require_length(width_mm)
    _require_length(height_mm)
    corners = np.asarray(corners, float)
    sides = np.roll(corners, -1, 0) - corners
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    if not turns.min() * turns.max() > 0 or np.abs(turns).min() < 1:
        raise ValueError(f"the corners {corners.tolist()} are not those of a rectangle, in order")
    wall = np.array([(0, 0), (width_mm, 0), (width_mm, height_mm), (0, height_mm)], float)
    # u (g x + h y + 1) = a x + b y + c and v (g x + h y + 1) = d x + e y + f at four corners: eight unknowns.
    known = np.column_stack([corners, np.ones(4)])
    u, v = (np.column_stack([-side[:, None] * corners, side]) for side in wall.T)
    zero = np.zeros_like(known)
    rows = np.concatenate([np.hstack([known, zero, u]), np.hstack([zero, known, v])])
    matrix = np.append(np.linalg.solve(rows[:, :8], rows[:, 8]), 1).reshape(3, 3)
    matrix *= np.sign(known[0] @ matrix[2])  # so that depth is above 0 on the rectangle's side of the horizon

    def to_wall(points: np.ndarray) -> np.ndarray:
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        depth = moved[..., 2:]
        return np.where(depth > 0, moved[..., :2] / np.where(depth > 0, depth, 1), np.nan)

    return to_wall


def _require_length(mm: float) -> None:
    if not 0 < mm < np.inf:
        raise ValueError(f"{mm} mm is no length above 0")


def width_class(width: float, limits: dict[str, float] = BRE_251) -> str:
    """Returns the class of a crack by its width, by default in mm as BRE Digest 251 draws the limits.

    Limits are the widest of each class, in rising order and in the unit of the width; the last takes all that is wider.

    >>> width_class(0.05), width_class(3), width_class(40)
    ('hairline', 'slight', 'very severe')
    """
    return next((name for name, limit in limits.items() if width <= limit), list(limits)[-1])
