"""What is done to a raw mask before it is delivered: small things go, gaps and holes close, pieces of a joint join."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import find_objects, grey_closing, grey_opening, label
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import block_reduce

from drywall_seg.images import STRIP
from drywall_seg.inference.scores import FIELDS, N_LEVELS
from drywall_seg.inference.trace import trace

EIGHT = np.ones((3, 3), bool)
"""Pixels that touch at a corner are neighbours too."""
JOIN_ANGLE = 20.0
"""Degrees by which two pieces, and the gap between them, may turn and still be one line."""
JOIN_SIDE = 1600
"""Larger photos are looked at for gaps at a size of at most this: tracing a line costs more than predicting it."""
BOXES = ("", "axis-aligned", "turned")


@dataclass(frozen=True)
class PostProcessing:
    """Steps in the order in which they are done; each is left out at 0. Lengths are shares of the longer side."""

    opening: float = 0.0
    """Half width of a square: what is thinner goes."""
    closing: float = 0.0
    """Half width of a square: gaps narrower than it close."""
    join_gap: float = 0.0
    """Longest gap across which two pieces that lie in one line are joined."""
    hole_area: float = 0.0
    """Holes up to this share of the photo are filled."""
    min_area: float = 0.0
    """Components under this share of the photo go."""
    boxes: str = ""
    """One of `BOXES`: each component becomes the rectangle around it, upright or as turned as is smallest."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "boxes" and not is_share(value):
                raise ValueError(f"{name} is {value!r}, not a share from 0 to 1")
        if self.boxes not in BOXES:
            raise ValueError(f"boxes is {self.boxes!r}, not one of {', '.join(map(repr, BOXES))}")


def is_share(value: Any) -> bool:
    """Says whether a value is a number from 0 to 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def read_delivery(stored: dict, where: str | Path) -> tuple[dict[str, float], float, dict[str, PostProcessing]]:
    """Returns thresholds and post-processing by label, and the presence cut between them, of a stored thresholds.json.

    Raises:
        ValueError: If masks cannot be made by it, or photos not be compared with its reference: naming file and value.
    """
    for part in ("thresholds", "postprocessing", "reference"):
        if not isinstance(stored.get(part, {}), dict):
            raise ValueError(f"{where}: {part} is {stored[part]!r:.80}, not a value for each label")
    cut = stored.get("presence_cut", 0.0)
    for name, value in {**stored.get("thresholds", {}), "presence_cut": cut}.items():
        if not is_share(value):
            raise ValueError(f"{where}: {name} is {value!r:.80}, not a number from 0 to 1")
    for name, known in stored.get("reference", {}).items():
        if not _is_reference(known):
            raise ValueError(f"{where}: the reference of {name} is {known!r:.80}, not {N_LEVELS} quantiles a field")
    steps = {}
    for name, values in stored.get("postprocessing", {}).items():
        try:
            steps[name] = PostProcessing(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: post-processing of {name} is {values!r:.80}: {error}") from error
    return stored.get("thresholds", {}), cut, steps


def _is_reference(known: Any) -> bool:
    if not isinstance(known, dict) or type(known.get("n")) is not int or known["n"] < 1:
        return False
    columns = [known.get(field) for field in FIELDS]
    if not all(isinstance(column, list) and len(column) == N_LEVELS for column in columns):
        return False
    return all(type(value) in (int, float) and abs(value) < 1e9 for column in columns for value in column)


def postprocess(mask: np.ndarray, steps: PostProcessing) -> np.ndarray:
    """Returns the delivered mask, uint8 (H, W), {0, 255}, of a raw one; an empty one stays empty."""
    if steps == PostProcessing() or not mask.any():
        return mask
    side = max(mask.shape)
    for share, step in ((steps.opening, grey_opening), (steps.closing, grey_closing)):
        if radius := round(share * side):  # beyond its edge a photo goes on as it is there: that is no gap
            mask = step(mask, 2 * radius + 1, mode="nearest")
    if steps.join_gap:
        mask = join_lines(mask, steps.join_gap * side)
    if steps.hole_area:
        mask = _fill_holes(mask, steps.hole_area * mask.size)
    if steps.min_area:
        labelled, areas = label_areas(mask, EIGHT)
        mask = _chosen(labelled, areas >= steps.min_area * mask.size)
    return fill_boxes(mask, steps.boxes == "turned") if steps.boxes else mask


def label_areas(inside: np.ndarray, structure: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the components of (H, W) from 1, int32, and counts the pixels of each and of the rest."""
    labelled, count = label(inside, structure)
    areas = np.zeros(count + 1, np.int64)
    for top in range(0, len(labelled), STRIP):  # bincount copies what it counts, to 8 bytes a pixel
        areas += np.bincount(labelled[top : top + STRIP].ravel(), minlength=count + 1)
    return labelled, areas


def _chosen(labelled: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the mask of the components kept, by number; 0 is none."""
    values = np.where(kept, 255, 0).astype(np.uint8)
    values[0] = 0
    return values[labelled]


def _fill_holes(mask: np.ndarray, area: float) -> np.ndarray:
    labelled, areas = label_areas(mask == 0, None)  # by sides: what surrounds a hole may touch at corners
    edges = np.concatenate([labelled[0], labelled[-1], labelled[:, 0], labelled[:, -1]])
    filled = areas <= area
    filled[np.unique(edges)] = False
    return mask | _chosen(labelled, filled)


def fill_boxes(mask: np.ndarray, turned: bool) -> np.ndarray:
    """Fills the rectangle around each component of a mask (H, W), {0, 255}: upright, or turned as is smallest."""
    labelled, _ = label(mask, EIGHT)
    canvas = Image.new("L", mask.shape[::-1])
    draw = ImageDraw.Draw(canvas)
    for number, window in enumerate(find_objects(labelled), 1):
        points = _row_ends(labelled[window] == number) + (window[1].start, window[0].start)
        corners = _smallest_rectangle(points) if turned else _upright(points)
        draw.polygon([tuple(corner) for corner in np.rint(corners)], fill=255)
    return np.array(canvas)


def _row_ends(piece: np.ndarray) -> np.ndarray:
    """Returns the first and the last point (x, y) of each row of a component (H, W): on them lies its hull."""
    rows, last = np.arange(len(piece)), piece.shape[1] - 1
    left, right = piece.argmax(axis=1), last - piece[:, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([left, rows]), np.column_stack([right, rows])])


def _upright(points: np.ndarray) -> np.ndarray:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _smallest_rectangle(points: np.ndarray) -> np.ndarray:
    """Returns the corners (4, 2) of the smallest rectangle around points (N, 2): one of its sides lies on their hull.

    Freeman & Shapira 1975, doi:10.1145/360881.360919.
    """
    try:
        hull = points[ConvexHull(points).vertices].astype(float)
    except QhullError:  # all on one line, or too few
        order = np.lexsort(points.T)
        return points[order[[0, -1, -1, 0]]]
    sides = np.diff(hull, axis=0, append=hull[:1])
    ways = sides / np.linalg.norm(sides, axis=1, keepdims=True)
    turns = np.stack([ways, np.column_stack([-ways[:, 1], ways[:, 0]])], axis=1)  # (E, 2, 2): along and across
    along = np.einsum("eij,nj->eni", turns, hull)
    low, high = along.min(axis=1), along.max(axis=1)
    best = int(np.argmin(np.prod(high - low, axis=1)))
    return _upright(np.stack([low[best], high[best]])) @ turns[best]


def join_lines(mask: np.ndarray, gap: float) -> np.ndarray:
    """Joins pieces whose ends face each other along one line with bands of their own width, {0, 255} (H, W) both.

    The longest gap is in pixels. Each end is joined once, the nearest pair first.
    """
    factor = -(-max(mask.shape) // JOIN_SIDE)
    smaller = block_reduce(mask, factor, np.max)
    if label(smaller, EIGHT)[1] < 2:
        return mask
    ends = _line_ends(smaller > 0)
    facing = np.cos(np.radians(JOIN_ANGLE))
    pairs = []
    for i, j in itertools.combinations(range(len(ends)), 2):
        (piece, point, way, width), (other, far, back, far_width) = ends[i], ends[j]
        across = far - point
        length = np.linalg.norm(across)
        if piece == other or not 0 < length * factor <= gap or -(way @ back) < facing:
            continue
        if min(way @ across, -(back @ across)) >= facing * length:
            pairs.append((length, i, j, point, far, (width + far_width) / 2))
    canvas = Image.fromarray(mask)
    draw, used = ImageDraw.Draw(canvas), set()
    for _, i, j, point, far, width in sorted(pairs, key=lambda pair: pair[:3]):
        if not used & {i, j}:
            used |= {i, j}
            band = [tuple((end + 0.5) * factor - 0.5) for end in (point, far)]
            draw.line(band, fill=255, width=max(1, round(width * factor)))
    return np.asarray(canvas) if used else mask


def _line_ends(inside: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, float]]:
    """Returns the ends of each component's longest line: its number, the point (x, y), the way out, and its width."""
    labelled, _ = label(inside, EIGHT)
    ends = []
    for number, window in enumerate(find_objects(labelled), 1):
        piece = np.pad(labelled[window] == number, 2)
        _, _, points = trace(piece)
        length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
        if length == 0 or length < 2 * (width := np.count_nonzero(piece) / length):  # a patch points nowhere
            continue
        points = points + (window[1].start - 2, window[0].start - 2)
        back = min(len(points) - 1, max(5, round(2 * width)))
        for end, inner in ((points[0], points[back]), (points[-1], points[-1 - back])):
            ends.append((number, end, (end - inner) / np.linalg.norm(end - inner), width))
    return ends
