"""What is done to a raw mask before it is delivered: small things go, gaps and holes close, pieces of a joint join."""

import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening, find_objects, label
from skimage.morphology import disk

from drywall_seg.inference.trace import trace

EIGHT = np.ones((3, 3), bool)
JOIN_ANGLE = 20.0
"""Degrees by which two pieces, and the gap between them, may turn and still be one line."""


@dataclass(frozen=True)
class PostProcessing:
    """Steps in the order in which they are done; each is left out at 0. Lengths are shares of the longer side."""

    opening: float = 0.0
    """Radius: what is thinner than twice this goes."""
    closing: float = 0.0
    """Radius: gaps narrower than twice this close."""
    join_gap: float = 0.0
    """Longest gap across which two pieces that lie in one line are joined."""
    hole_area: float = 0.0
    """Holes up to this share of the photo are filled."""
    min_area: float = 0.0
    """Components under this share of the photo go."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}, not a share from 0 to 1")


def postprocess(mask: np.ndarray, steps: PostProcessing) -> np.ndarray:
    """Returns the delivered mask, uint8 (H, W), {0, 255}, of a raw one; an empty one stays empty."""
    if not mask.any() or steps == PostProcessing():
        return mask
    inside, side = mask > 0, max(mask.shape)
    for operation, share in ((binary_opening, steps.opening), (binary_closing, steps.closing)):
        if radius := round(share * side):
            padded = np.pad(inside, radius, "edge")  # what lies outside the photo is no gap
            inside = operation(padded, disk(radius))[radius:-radius, radius:-radius]
    if steps.join_gap:
        inside = join_lines(inside, steps.join_gap * side)
    if steps.hole_area:
        inside |= _small(binary_fill_holes(inside) & ~inside, steps.hole_area * mask.size, keep_small=True)
    if steps.min_area:
        inside = _small(inside, steps.min_area * mask.size, keep_small=False)
    return inside.astype(np.uint8) * np.uint8(255)


def _small(inside: np.ndarray, area: float, keep_small: bool) -> np.ndarray:
    """Keeps components of at most (or of at least) so many pixels."""
    labelled, count = label(inside, EIGHT)
    areas = np.bincount(labelled.ravel(), minlength=count + 1)
    kept = areas <= area if keep_small else areas >= area
    kept[0] = False
    return kept[labelled]


def join_lines(inside: np.ndarray, gap: float) -> np.ndarray:
    """Joins pieces whose ends face each other along one line, bool (H, W) both, with bands of their own width.

    Each end is joined once, the nearest pair first.

    Args:
        inside: The mask.
        gap: The longest, in pixels.
    """
    ends = _line_ends(inside)
    facing = np.cos(np.radians(JOIN_ANGLE))
    pairs = []
    for (i, (piece, point, way, width)), (j, (other, far, back, far_width)) in itertools.combinations(
        enumerate(ends), 2
    ):
        across = far - point
        length = np.linalg.norm(across)
        if piece == other or not 0 < length <= gap or -(way @ back) < facing:
            continue
        if min(way @ across, -(back @ across)) >= facing * length:
            pairs.append((length, i, j, point, far, (width + far_width) / 2))
    canvas = Image.fromarray(inside.astype(np.uint8) * 255)
    draw, used = ImageDraw.Draw(canvas), set()
    for _, i, j, point, far, width in sorted(pairs, key=lambda pair: pair[:3]):
        if not used & {i, j}:
            used |= {i, j}
            draw.line([tuple(point), tuple(far)], fill=255, width=max(1, round(width)))
    return np.asarray(canvas) > 0


def _line_ends(inside: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, float]]:
    """Returns the ends of each component's longest line: its number, the point (x, y), the way out, and its width."""
    labelled, _ = label(inside, EIGHT)
    ends = []
    for number, window in enumerate(find_objects(labelled), 1):
        piece = np.pad(labelled[window] == number, 2)
        _, _, points = trace(piece)
        length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
        if length == 0:
            continue
        width = np.count_nonzero(piece) / length
        if length < 2 * width:  # a patch points nowhere
            continue
        points = points + (window[1].start - 2, window[0].start - 2)
        back = min(len(points) - 1, max(5, round(2 * width)))
        for end, inner in ((points[0], points[back]), (points[-1], points[-1 - back])):
            ends.append((number, end, (end - inner) / np.linalg.norm(end - inner), width))
    return ends
