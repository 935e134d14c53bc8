"""The sample: drywall photographs drawn by this module, written as two Roboflow COCO exports and an overlay.

Points are (x, y) in pixels of the finished photograph, with (0, 0) at the outer corner of the first pixel. Lengths in
the code are for a photograph of 320 pixels and are multiplied by `unit` for others.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

VERSION = 1
SUPERSAMPLE = 2  # drawn this much larger and averaged down, which smooths the edges
SHAPES = ((1, 1), (1, 0.75), (0.75, 1), (1, 1), (1, 2 / 3), (0.8, 1))  # width and height in parts of `size`, in turn
COPIES = {"crack": (1, 2, 1, 2, 1, 3, 1, 1) * 6, "joint": (2, 1, 3, 2) * 6}  # of each photograph: 72 and 48 images
EMPTY = {"crack": (4, 29), "joint": (9,)}  # photographs that show nothing to annotate
CATEGORIES = {"crack": ("crack", "NewCracks - sample"), "joint": ("Drywall-Join", "drywall-join")}  # unused parent, used
EXPORTS = {"crack": "cracks.coco", "joint": "Drywall-Join-Detect.coco"}
OVERLAY = "joint_lines.coco.json"
README = "README.dataset.txt"
# How the first branched cracks are annotated; all others are polygons of one ring. The last three take one short branch.
CASES = ("rings", "rle", "uncompressed", "rings", "box", "rle", "rings", "degenerate", "uncompressed", "crowd", "rings")
WALLS = ((226, 224, 218), (214, 204, 184), (188, 190, 190), (190, 203, 178), (178, 192, 205), (203, 164, 134))
WALLS += ((232, 228, 214), (158, 156, 150), (222, 206, 150), (206, 208, 212))
BOARDS = ((186, 184, 178), (172, 176, 178), (208, 199, 178), (196, 192, 182), (150, 178, 162), (168, 190, 184))
TRIMS = ((238, 236, 230), (150, 112, 78), (96, 112, 140), (118, 116, 112))


class _Canvas:
    """A photograph while it is drawn: `pixels` (H, W, 3), supersampled, in [0, 255]."""

    def __init__(self, rng, size_wh, unit, colour):
        self.rng, self.unit, self.size_wh = rng, unit, size_wh
        shape = (size_wh[1] * SUPERSAMPLE, size_wh[0] * SUPERSAMPLE)
        self.y, self.x = (np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5) / SUPERSAMPLE
        self.pixels = np.ones((*shape, 3), np.float32) * np.float32(colour) * rng.uniform(0.94, 1.06, 3).astype("f4")

    def noise(self, cell, stretch=1.0):
        """Smooth noise (H, W) around 0 with spots `cell` wide and `cell * stretch` high."""
        step, (high, wide) = cell * self.unit * SUPERSAMPLE, self.x.shape
        coarse = self.rng.standard_normal((int(high / step / stretch) + 3, int(wide / step) + 3)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC))

    def stencil(self, *polygons, blur=0.0):
        """Coverage (H, W) in [0, 1] of polygons (N, 2), softened by `blur` pixels."""
        image = Image.new("L", self.x.shape[::-1])
        for polygon in polygons:
            ImageDraw.Draw(image).polygon([tuple(point) for point in polygon * SUPERSAMPLE - 0.5], fill=255)
        image = image.filter(ImageFilter.GaussianBlur(blur * self.unit * SUPERSAMPLE)) if blur else image
        return np.asarray(image, np.float32) / 255

    def paint(self, stencil, colour):
        self.pixels += stencil[..., None] * (np.float32(colour) - self.pixels)

    def shade(self, gain):
        self.pixels *= gain[..., None]

    def emboss(self, height, strength):
        """Lights a relief (H, W) from the upper left."""
        slope = height - np.roll(height, (2, 2), (0, 1))
        self.shade(1 + strength * np.clip(slope / (slope.std() + 1e-6), -3, 3))

    def photograph(self):
        """The finished picture: light of the room, vignette, lens blur and sensor noise."""
        rng, (wide, high) = self.rng, self.size_wh
        x, y, turn = self.x / wide - 0.5, self.y / high - 0.5, rng.uniform(0, 2 * np.pi)
        pool = np.exp(-((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.6, 0.2)) ** 2) / 0.3)
        self.shade(rng.uniform(0.72, 0.95) + rng.uniform(0.1, 0.45) * (np.cos(turn) * x + np.sin(turn) * y))
        self.shade((1 + rng.uniform(0.05, 0.22) * pool) * (1 - rng.uniform(0.2, 0.6) * (x * x + y * y)))
        small = self.pixels.reshape(high, SUPERSAMPLE, wide, SUPERSAMPLE, 3).mean((1, 3))
        small += rng.normal(0, rng.uniform(0.8, 2.6), (high, wide, 1)) + rng.normal(0, 0.8, small.shape)
        image = Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6)))


def _band(points, half_width):
    """Polygon (2N, 2) around a path (N, 2)."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    side = normal * np.broadcast_to(half_width, len(points))[:, None]
    return np.concatenate([points + side, (points - side)[::-1]])


def _disc(centre, radius):
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    return np.float64(centre) + radius * np.stack([np.cos(turn), np.sin(turn)], 1)


def _rectangle(left, top, right, bottom):
    return np.float64([(left, top), (right, top), (right, bottom), (left, bottom)])


def _clip(points, size_wh):
    """The part of a polygon (N, 2) inside the rectangle from (0, 0) to `size_wh` (Sutherland and Hodgman, 1974)."""
    for axis, side, sign in ((0, 0, 1), (0, size_wh[0], -1), (1, 0, 1), (1, size_wh[1], -1)):
        depth, kept = sign * (points[:, axis] - side), []
        for p, q, p_depth, q_depth in zip(points, np.roll(points, -1, 0), depth, np.roll(depth, -1), strict=True):
            kept += [p] if p_depth >= 0 else []
            kept += [p + (q - p) * p_depth / (p_depth - q_depth)] if (p_depth < 0) != (q_depth < 0) else []
        points = np.reshape(kept, (-1, 2))
    return points


def _strokes(rng, size_wh, unit):
    """A crack as strokes (path (N, 2), half width (N,)): a main one that thins out, and branches."""
    wide, high = size_wh
    centre, turn = np.float64(size_wh) * rng.uniform(0.3, 0.7, 2), rng.uniform(0, np.pi)
    reach = np.array([np.cos(turn), np.sin(turn)]) * max(wide, high) * rng.uniform(0.35, 0.75)
    legs = [(centre - reach, centre + reach * rng.uniform(0.5, 1), rng.choice([1.7, 2.4, 3.4, 5.0]) * unit)]
    strokes, rough = [], rng.uniform(0.1, 0.2)
    while legs:
        start, end, width = legs.pop()
        points = np.stack([start, end])
        while np.hypot(*(points[1] - points[0])) > 5 * unit:  # midpoint displacement: the same roughness at every scale
            step = np.diff(points, axis=0)
            bent = np.stack([-step[:, 1], step[:, 0]], 1) * rng.normal(0, rough, (len(step), 1))
            points = np.insert(points, np.arange(1, len(points)), points[:-1] + step / 2 + bent, axis=0)
        along = np.linspace(0, 1, len(points))
        swell = np.interp(along, np.linspace(0, 1, 24), rng.normal(1, 0.28, 24)).clip(0.5, 1.8)
        strokes.append((points, np.maximum(width / 2 * (1 - 0.75 * along**1.5) * swell, 0.55 * unit)))
        for _ in range(rng.choice([0, 1, 2, 3], p=[0.25, 0.35, 0.25, 0.15]) if len(strokes) == 1 else 0):
            root, turn = rng.integers(len(points) // 6, len(points) * 4 // 5), rng.choice([-1, 1]) * rng.uniform(0.4, 1)
            spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            tip = points[root] + spin @ (end - start) * rng.uniform(0.18, 0.4)
            legs.append((points[root], tip, 1.5 * strokes[0][1][root]))
    return strokes


def _texture(canvas, kind):
    """Paint, plaster or board paper, before anything is on it."""
    rng = canvas.rng
    canvas.shade(1 + rng.uniform(0.01, 0.035) * canvas.noise(90) + rng.uniform(0.005, 0.02) * canvas.noise(22))
    if kind == "joint":
        canvas.shade(1 + 0.008 * canvas.noise(1.2, 14) + 0.012 * canvas.noise(0.9))
        return
    rough = rng.choice([0.25, 0.6, 1.0])
    canvas.emboss(canvas.noise(rng.uniform(2.2, 6)) + 0.6 * canvas.noise(1.3), rough * rng.uniform(0.02, 0.05))
    canvas.shade(1 + rough * (0.025 * canvas.noise(0.8) - 0.05 * np.maximum(canvas.noise(1.6) - 1.6, 0)))


def _clutter(canvas, kind, taken):
    """What else is on a wall: stain, shadow, pencil line, screws, socket plate. Nothing solid covers `taken` (H, W)."""
    rng, unit, (wide, high) = canvas.rng, canvas.unit, canvas.size_wh
    if rng.random() < 0.35:
        stain = np.clip((canvas.noise(rng.uniform(45, 90)) - 0.7) * 3, 0, 1) * rng.uniform(0.1, 0.35)
        canvas.paint(stain, canvas.pixels.mean((0, 1)) * rng.choice([(0.8, 0.7, 0.55), (0.72, 0.7, 0.68)]))
    if rng.random() < 0.4:
        edge = rng.uniform(0.2, 0.8) * wide + rng.normal(0, 0.25) * (canvas.y - high / 2) - canvas.x
        canvas.shade(1 - rng.uniform(0.12, 0.3) / (1 + np.exp(-np.clip(edge / rng.uniform(2, 14) / unit, -30, 30))))
    if rng.random() < 0.35:
        start, turn = rng.uniform(0.1, 0.9, 2) * (wide, high), rng.uniform(-0.12, 0.12) + rng.choice([0, np.pi / 2])
        line = np.stack([start, start + np.array([np.cos(turn), np.sin(turn)]) * rng.uniform(60, 200) * unit])
        grey = 0.6 + 0.4 * np.clip(canvas.noise(3), -1, 1)
        canvas.paint(canvas.stencil(_band(line, 0.5 * unit)) * rng.uniform(0.25, 0.45) * grey, (92, 94, 100))
    if kind == "crack" and rng.random() < 0.3:
        holes = [_disc(rng.uniform(0.05, 0.95, 2) * (wide, high), rng.uniform(0.8, 2.2) * unit) for _ in range(6)]
        canvas.paint(canvas.stencil(*holes, blur=0.3) * 0.7, (70, 64, 60))
    left, top = rng.uniform(0.04, 0.72, 2) * (wide, high)
    side, outer = rng.uniform(36, 54) * unit, _rectangle(left, top, left + 1, top + 1)
    outer = left_top = outer[0] + (outer - outer[0]) * side
    if rng.random() < 0.5 and not (canvas.stencil(outer, blur=1) * taken).any():
        canvas.shade(1 - 0.45 * canvas.stencil(outer + 2.2 * unit, blur=2.2))
        middle = left_top.mean(0)
        if kind == "joint":  # a box cut out for a socket
            canvas.paint(canvas.stencil(outer, blur=0.4), (52, 48, 46))
            canvas.paint(canvas.stencil(middle + (outer - middle) * 0.86 + 1.5 * unit, blur=1), (30, 40, 70))
            return
        canvas.paint(canvas.stencil(outer, blur=0.6), (238, 238, 234))
        canvas.shade(1 + 0.05 * canvas.stencil(middle + (outer - middle) * 0.9, blur=1.5))
        inner = middle + (outer - middle) * (0.55, rng.choice([0.62, 0.55]))
        canvas.shade(1 - 0.3 * (canvas.stencil(inner + 0.5, blur=0.4) - canvas.stencil(inner * 0.98 + middle * 0.02)))
        if rng.random() < 0.6:  # a socket; else the rocker of a switch
            holes = [_disc(middle + (dx * side, 0), 0.045 * side) for dx in (-0.12, 0.12)]
            canvas.paint(canvas.stencil(*holes, blur=0.3), (40, 38, 38))


def _trim(canvas, extent_wh):
    """Skirting, floor or door casing outside `extent_wh`, the part of the photograph that is wall."""
    axis = 0 if extent_wh[0] < canvas.size_wh[0] else 1
    depth = ((canvas.x, canvas.y)[axis] - extent_wh[axis]) / canvas.unit
    if depth.max() <= 0:
        return
    canvas.shade(1 - 0.35 * np.exp(-((np.minimum(depth, 0) / 4) ** 2)) * (depth < 0))
    colour = np.float32(TRIMS[canvas.rng.integers(len(TRIMS))]) * (1 + 0.03 * canvas.noise(3, 12))[..., None]
    canvas.paint(np.clip(depth + 0.5, 0, 1), colour)
    for at, width, gain in ((0.6, 0.8, 0.45), (3, 1.5, -0.1), (11, 1.2, 0.25), (13, 1.5, -0.08)):
        canvas.shade(1 - gain * np.exp(-(((depth - at) / width) ** 2)))


def _crack(canvas, strokes):
    """Draws strokes: a dark gap, deeper where it is wide, with one lit and one flaking edge."""
    rng, unit = canvas.rng, canvas.unit
    gap = canvas.stencil(*[_band(points, half) for points, half in strokes])
    lip = canvas.stencil(*[_band(points + 0.9 * unit, half + 0.5 * unit) for points, half in strokes], blur=0.5)
    canvas.shade(1 + rng.uniform(0.08, 0.22) * np.clip(lip - gap, 0, 1))
    core = canvas.stencil(*[_band(points - 0.3 * unit, half * 0.6) for points, half in strokes], blur=0.4)
    wall, depth = canvas.pixels.mean((0, 1)), rng.uniform(0.55, 0.75)
    canvas.paint(gap * (0.85 + 0.15 * np.clip(canvas.noise(3), -1, 1)), wall * (1 - depth) * (1.0, 0.96, 0.9))
    canvas.shade(1 - 0.6 * core)


def _joint(canvas, line, kind, half):
    """Draws a joint along `line` (2, 2), `half` pixels to each side: an open gap, paper tape, or joint compound."""
    rng, unit, (dx, dy) = canvas.rng, canvas.unit, (line[1] - line[0]) / np.hypot(*(line[1] - line[0]))
    x, y = canvas.x - line[0, 0], canvas.y - line[0, 1]
    along, off = (x * dx + y * dy) / unit, (y * dx - x * dy) / unit
    half, away = half / unit, np.abs(off)
    canvas.shade(1 + rng.normal(0, 0.02) * np.tanh(off / 3))  # one board catches more light than the other
    canvas.shade(1 + rng.choice([-1, 1]) * 0.05 * off / 14 * np.exp(-((off / 14) ** 2)) * 2.3)  # tapered edges
    worn = np.interp(along, np.arange(-700, 700, 9), rng.standard_normal(156)).astype(np.float32)
    if kind == "gap":
        canvas.shade(1 + 0.1 * np.exp(-((away - half - 1.1) ** 2)))
        cover = np.clip(half + 0.35 * worn + 0.3 * np.maximum(canvas.noise(4) - 1, 0) - away + 0.5, 0, 1)
        canvas.paint(cover * rng.uniform(0.6, 0.9), np.float32([58, 54, 50]))
    elif kind == "tape":
        canvas.paint(0.5 * np.clip((half + 7 + 3 * canvas.noise(14) - away) / 4, 0, 1), (222, 219, 212))
        cover = np.clip(half + 0.25 * worn - away + 0.5, 0, 1)
        canvas.shade(1 - 0.2 * np.exp(-(((away - half - 0.8) / 1.1) ** 2)) * (0.4 + 0.6 * (off > 0)))
        canvas.paint(cover * 0.85, np.float32(rng.choice([(214, 200, 172), (226, 220, 206), (205, 196, 180)])))
        canvas.shade(1 + cover * 0.018 * canvas.noise(2.5) + 0.012 * cover * canvas.noise(9))
        canvas.shade(1 - rng.uniform(0.1, 0.2) * np.exp(-((off / 0.9) ** 2)) + 0.07 * np.exp(-(((off - 2) / 1) ** 2)))
    else:
        edge = half + 3.5 * canvas.noise(16) + 1.5 * canvas.noise(5)
        cover = np.clip((edge - away) / 5, 0, 1)
        streaks = np.interp(off, np.arange(-60, 60, 1.3), rng.standard_normal(93)).astype(np.float32)
        canvas.paint(cover * 0.9, (232, 230, 224))
        canvas.shade(1 + cover * (0.015 * streaks + 0.015 * canvas.noise(20)))
        canvas.shade(1 - 0.1 * np.exp(-(((edge - away) / 1.2) ** 2)) * (off > 0) + 0.05 * np.exp(-((edge - away - 3) ** 2)))
        canvas.shade(1 - rng.uniform(0.1, 0.2) * np.exp(-((off / 1.1) ** 2)))
    offsets = (half + 6.5, -half - 6.5, rng.uniform(85, 120), -rng.uniform(85, 120))
    start, step = rng.uniform(0, 30), rng.uniform(30, 46)
    spots = [(a + rng.normal(0, 1.5), o + rng.normal(0, 0.8)) for o in offsets for a in np.arange(start, 460, step)]
    spots = [line[0] + unit * (a * np.array([dx, dy]) + o * np.array([-dy, dx])) for a, o in spots]
    if rng.random() < 0.35:  # dabs of compound on the screws
        canvas.paint(canvas.stencil(*[_disc(spot, 5.5 * unit) for spot in spots], blur=1.5) * 0.7, (230, 228, 222))
    else:
        canvas.shade(1 + 0.12 * canvas.stencil(*[_disc(spot + 0.8, 2.6 * unit) for spot in spots], blur=0.6))
        canvas.paint(canvas.stencil(*[_disc(spot, 1.7 * unit) for spot in spots], blur=0.4) * 0.8, (66, 62, 60))


def _lines(rng, size_wh, unit):
    """Joints of one photograph: (line (2, 2), kind, half width), one upright or level, or two that cross."""
    middle, diagonal = np.float64(size_wh) / 2, 2 * np.hypot(*size_wh)
    lean = np.radians(rng.choice([0, rng.normal(0, 3), rng.uniform(-25, 25)]))
    first, joints = rng.choice([0, np.pi / 2]), []
    for turn in (first, first + np.pi / 2)[: rng.choice([1, 2], p=[0.75, 0.25])]:
        kind = rng.choice(["gap", "tape", "mud"], p=[0.4, 0.35, 0.25])
        half = {"gap": rng.uniform(0.7, 1.5), "tape": rng.uniform(10, 17), "mud": rng.uniform(15, 24)}[kind] * unit
        reach = np.array([np.cos(turn + lean), np.sin(turn + lean)]) * diagonal / 2
        through = middle + rng.uniform(-0.22, 0.22, 2) * size_wh
        joints.append((np.stack([through - reach, through + reach]), kind, half))
    return joints


def _photograph(rng, kind, size_wh, unit, empty):
    """One photograph and what is to be annotated in it: polygons (N, 2) of cracks, or (line (2, 2), half width)."""
    colours = WALLS if kind == "crack" else BOARDS
    canvas = _Canvas(rng, size_wh, unit, colours[rng.integers(len(colours))])
    extent = np.float64(size_wh)
    if rng.random() < 0.25:
        extent[rng.integers(2)] *= rng.uniform(0.78, 0.9)
    _texture(canvas, kind)
    if kind == "crack":
        strokes = [] if empty else _strokes(rng, size_wh, unit)
        truth = [_clip(_band(points, half + unit), extent) for points, half in strokes]
        taken = canvas.stencil(*[_band(points, half + 2 * unit) for points, half in strokes])
        _clutter(canvas, kind, taken)
        if strokes:
            _crack(canvas, strokes)
    else:
        joints = [] if empty else _lines(rng, size_wh, unit)
        truth = [(_ends(_clip(line, extent), line), half) for line, _, half in joints]
        taken = canvas.stencil(*[_band(line, half + 3 * unit) for line, _, half in joints])
        for joint in joints:
            _joint(canvas, *joint)
        _clutter(canvas, kind, taken)
    _trim(canvas, extent)
    return canvas.photograph(), truth


def _ends(points, line):
    """The two ends (2, 2) of what `_clip` left of a line; None where nothing is left."""
    place = points @ (line[1] - line[0])
    return points[[place.argmin(), place.argmax()]] if len(points) > 1 else None


def _turned(points, size_wh, quarters, flip, degrees):
    """Points (N, 2) where the same moves take them that `_copy` makes with the pixels."""
    for _ in range(quarters):
        points, size_wh = np.stack([points[:, 1], size_wh[0] - points[:, 0]], 1), size_wh[::-1]
    points = np.abs(points - (size_wh[0], 0)) * 1.0 if flip else points
    return points


def _copy(rng, image, original):
    """A publisher's copy of a photograph, and the function that moves points (N, 2) along with it."""
    quarters, flip, degrees = (0, False, 0.0) if original else (int(rng.integers(4)), rng.random() < 0.5, 0.0)
    degrees = rng.uniform(-9, 9) if not original and rng.random() < 0.6 else 0.0
    gain = 1.0 if original else rng.uniform(0.7, 1.25)
    wide, high = image.size
    moved = Image.fromarray(np.rot90(np.asarray(image), quarters))
    moved = moved.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else moved
    size = moved.size
    moved = moved.rotate(degrees, Image.Resampling.BICUBIC) if degrees else moved

    def move(points):
        box = np.float64((wide, high))
        for _ in range(quarters):
            points, box = np.stack([points[:, 1], box[0] - points[:, 0]], 1), box[::-1]
        points = np.stack([size[0] - points[:, 0], points[:, 1]], 1) if flip else points
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return (points - box / 2) @ np.array([[cos, -sin], [sin, cos]]) + box / 2

    return moved.point(lambda level: int(min(level * gain, 255))), move


def _annotation(rings, size_wh, case="polygon"):
    """A COCO annotation of polygons, in the form that `case` names. Box and area as Roboflow rounds them."""
    low, high = np.concatenate(rings).min(0), np.concatenate(rings).max(0)
    box = [int(v) for v in (*np.floor(low + 0.5), *np.ceil(high - low))]
    polygons = [np.round(ring, 1).ravel().tolist() for ring in rings]
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, size_wh[1], size_wh[0]))
    pixels = coco_mask.decode(rle).ravel(order="F")
    runs = np.diff([0, *np.flatnonzero(np.diff(pixels, prepend=0)), pixels.size]).tolist()
    segmentation = {"box": [], "degenerate": [[*map(float, low), *map(float, high)]]}.get(case, polygons)
    if case in ("rle", "uncompressed", "crowd"):
        counts = rle["counts"].decode() if case == "rle" else runs
        segmentation = {"size": [size_wh[1], size_wh[0]], "counts": counts}
    area = box[2] * box[3]
    return {"bbox": box, "area": area, "segmentation": segmentation, "iscrowd": int(case == "crowd")}


def _crack_annotations(polygons, size_wh, cases):
    """The annotations of one image; a branched crack takes the next of `cases`, a list that is used up."""
    polygons = sorted((p for p in polygons if len(p) > 2 and np.ptp(p, 0).min() > 3), key=lambda p: -np.ptp(p, 0).prod())
    case = cases.pop(0) if cases and len(polygons) > 1 else "polygon"
    if case in ("rings", "rle", "uncompressed"):
        return [_annotation(polygons, size_wh, case)]
    last = len(polygons) - 1
    return [_annotation([p], size_wh, case if i == last else "polygon") for i, p in enumerate(polygons)]


def _export(root, kind, seed, size):
    """Writes one export; returns the overlay's (image, annotations) pairs of the joints."""
    parts, overlay, cases = {}, [], list(CASES)
    for index, copies in enumerate(COPIES[kind]):
        rng = np.random.default_rng([seed, len(kind), index])
        size_wh = tuple(round(size * part) for part in SHAPES[index % len(SHAPES)])
        image, truth = _photograph(rng, kind, size_wh, size / 320, index in EMPTY[kind])
        for copy in range(copies):
            moved, move = _copy(rng, image, copy == 0)
            part = "valid" if copy or index % 8 == 7 else "test" if kind == "crack" and index % 16 == 3 else "train"
            part = "train" if copy == 1 and index % 4 == 1 else part
            name = f"{'wall' if kind == 'crack' else 'board'}_{index:02d}"
            rf = hashlib.md5(f"{seed}/{name}/{copy}".encode(), usedforsecurity=False).hexdigest()
            folder = root / EXPORTS[kind] / part
            folder.mkdir(parents=True, exist_ok=True)
            stream = io.BytesIO()
            moved.save(stream, "JPEG", quality=90)
            (folder / f"{name}_jpg.rf.{rf}.jpg").write_bytes(stream.getvalue())
            coco = parts.setdefault(part, {"images": [], "annotations": []})
            entry = {"id": len(coco["images"]), "license": 1, "file_name": f"{name}_jpg.rf.{rf}.jpg"}
            entry |= {"height": moved.height, "width": moved.width, "date_captured": "2026-01-01T00:00:00+00:00"}
            coco["images"].append(entry | {"extra": {"name": f"{name}.jpg"}})
            if kind == "crack":
                found = _crack_annotations([_clip(move(p), moved.size) for p in truth if len(p) > 2], moved.size, cases)
            else:
                lines = [(_ends(_clip(move(line), moved.size), move(line)), half) for line, half in truth if line is not None]
                lines = [(line, half) for line, half in lines if line is not None]
                hulls = [_clip(_band(line, half + 3 * size / 320), moved.size) for line, half in lines]
                found = [_annotation([hull], moved.size, "box") for hull in hulls]
                bands = [(_clip(_band(line, size / 128), moved.size), line, half) for line, half in lines]
                marks = [_annotation([b], moved.size) | {"centre_line": np.round(line, 1).tolist(), "visible_width": round(2 * half, 1)} for b, line, half in bands]
                if marks:
                    overlay.append(({"file_name": entry["file_name"], "width": moved.width, "height": moved.height, "sha256": hashlib.sha256(stream.getvalue()).hexdigest()}, marks))
            for annotation in found:
                coco["annotations"].append({"id": len(coco["annotations"]) + 1, "image_id": entry["id"], "category_id": 1} | annotation)
    for part, coco in parts.items():
        parent, used = CATEGORIES[kind]
        cats = [{"id": 0, "name": parent, "supercategory": "none"}, {"id": 1, "name": used, "supercategory": parent}]
        (root / EXPORTS[kind] / part / "_annotations.coco.json").write_text(json.dumps({"categories": cats} | coco))
    return overlay

def write_sample(root, seed=42, size=320):
    root = Path(root)
    _export(root, "crack", seed, size)
    _export(root, "joint", seed, size)
