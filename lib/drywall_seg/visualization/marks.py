"""Findings drawn on their photo: a line around each, and its number beside it."""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from skimage.measure import find_contours

from drywall_seg.inference.findings import shown

# Of Okabe and Ito's colours, as in `panels`; the lines differ too, for those who see no colour and for grey paper.
STYLES = {
    "crack": ("#D55E00", ()),
    "joint_line": ("#0072B2", (7, 4)),
    "taping_area": ("#007A5A", (1.5, 3)),
}
"""Colour and dashes (drawn, left out) of a label, in units of a photo's width on a phone."""
OWN_STYLE = ("#A2427E", (7, 3, 1.5, 3))
"""Of the user's own labels."""

PHONE = 400
"""A picture is this many units long: about the pixels that it has on a phone, so that what is drawn is seen there."""
LEAST_SIDE = 640
"""Smaller photos are enlarged to this, or numbers would be coarse."""
GAP, LINE, RIM, TEXT, LEADER = 3.0, 1.8, 3.8, 13, (16, 26, 38, 52)
"""In units: from a finding to its line, widths of line and white under it, height of numbers, their distances."""
FINER = 2
"""Drawn this much larger, then made smaller: Pillow's lines have steps."""


def draw_findings(photo: np.ndarray, findings: pd.DataFrame, masks: dict[str, np.ndarray], side: int) -> Image.Image:
    """Draws a photo with a line around every finding, which leaves the finding itself to be seen, and numbers.

    Args:
        photo: uint8 (H, W, 3).
        findings: Of `inspect_photo`; `shown` ones are numbered.
        masks: By sentence, (H, W).
        side: Longest of the picture in pixels.
    """
    longer = max(photo.shape[:2])
    scale = FINER * min(side, max(longer, LEAST_SIDE)) / longer
    size = tuple(max(1, round(length * scale)) for length in photo.shape[1::-1])
    unit = max(size) / PHONE
    canvas = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    labels = dict(zip(findings.prompt, findings.label, strict=True))
    marked = np.zeros(size[::-1], bool)
    for prompt, mask in masks.items():
        if prompt in labels:
            inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX)) > 0  # the thinnest line stays
            _outline(draw, inside, *STYLES.get(labels[prompt], OWN_STYLE), unit)
            marked |= inside
    _number(draw, shown(findings), marked, scale, unit)
    return canvas.resize([max(1, length // FINER) for length in size], Image.Resampling.LANCZOS)


def _outline(draw: ImageDraw.ImageDraw, inside: np.ndarray, color: str, dashes: tuple, unit: float) -> None:
    lines = [line[:, ::-1] for line in find_contours(distance_transform_edt(~inside), GAP * unit)]
    for line in lines:
        draw.line([tuple(p) for p in line], "white", round(RIM * unit), "curve")
    for line in lines:
        for piece in _dashed(line, [unit * part for part in dashes]) if dashes else [line]:
            draw.line([tuple(p) for p in piece], color, round(LINE * unit), "curve")


def _dashed(line: np.ndarray, dashes: list[float]) -> list[np.ndarray]:
    """Cuts a line (N, 2) into the pieces that are drawn."""
    along = np.concatenate([[0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    pieces = []
    for start in np.arange(0, along[-1], sum(dashes)):
        at = np.linspace(start, min(start + dashes[0], along[-1]), 5)
        pieces.append(np.column_stack([np.interp(at, along, line[:, 0]), np.interp(at, along, line[:, 1])]))
    return pieces


def _number(draw: ImageDraw.ImageDraw, findings: pd.DataFrame, marked: np.ndarray, scale: float, unit: float) -> None:
    """Writes each number in a box where it covers least, and joins it with its finding."""
    font = ImageFont.load_default(TEXT * unit)
    filled = marked.astype(np.int32).cumsum(0).cumsum(1)
    boxes: list[tuple[float, ...]] = []
    leaders = []
    for row in findings.itertuples():
        anchor = np.clip([(row.x + 0.5) * scale, (row.y + 0.5) * scale], 0, np.array(marked.shape[::-1]) - 1)
        size = np.array([draw.textlength(str(row.number), font) + 0.6 * TEXT * unit, 1.35 * TEXT * unit])
        left, top, right, bottom = box = _place(anchor, size, boxes, filled, unit)
        boxes.append(box)
        leaders.append([tuple(anchor), ((left + right) / 2, (top + bottom) / 2)])
    for color, width in (("white", 3.2), ("black", 1.2)):  # all under the boxes
        for leader in leaders:
            draw.line(leader, color, round(width * unit))
            draw.circle(leader[0], width * unit, color)
    for row, box, (_, middle) in zip(findings.itertuples(), boxes, leaders, strict=True):
        color, _ = STYLES.get(row.label, OWN_STYLE)
        draw.rounded_rectangle(box, 3 * unit, "white", color, round(1.6 * unit))
        draw.text(middle, str(row.number), "black", font, anchor="mm")


def _place(
    anchor: np.ndarray, size: np.ndarray, boxes: list[tuple[float, ...]], filled: np.ndarray, unit: float
) -> tuple[float, ...]:
    """Returns the box (left, top, right, bottom) near a point (x, y), within the picture, that covers least.

    Other boxes count before what is marked, and that before the distance. `filled` (H, W) counts the marked pixels
    above and left of each.
    """
    whole = np.array(filled.shape[::-1]) - 1
    best, least = (0.0, 0.0, 0.0, 0.0), np.inf
    for distance in LEADER:
        for angle in np.radians(np.arange(45, 405, 22.5)):
            middle = anchor + distance * unit * np.array([np.cos(angle), -np.sin(angle)])
            low = np.clip(middle - size / 2, 0, np.maximum(whole - size, 0))
            left, top, right, bottom = box = (*low, *(low + size))
            x0, y0, x1, y1 = np.minimum(np.array(box).astype(int), [*whole, *whole])
            covered = filled[y1, x1] - filled[y0, x1] - filled[y1, x0] + filled[y0, x0]
            hit = sum(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in boxes)
            cost = 100 * hit + 3 * covered / size.prod() + distance / LEADER[-1]
            if cost < least:
                best, least = box, cost
    return best
