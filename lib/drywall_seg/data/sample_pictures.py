"""Draws the photographs of the sample: walls with cracks, and boards with joints.

A point is a complex number x + yj in pixels of the finished photograph, a path is (points (N,), half
width (N,)), a polygon is points (N,). `unit` is one pixel of a photograph of 320.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SCALE = 2  # drawn this much larger and averaged down, which smooths the edges
WALLS = "e8e6e0 dcd3c0 c6c8c8 c6d0ba bac7d2 d0ae92 ece9de acaaa4 e4d8ac d6d7da".split()
BOARDS, TRIMS = "c8c6c0 babdbe dad2c0 d0ccc3 aac2b3".split(), "eeece6 9c7a5a 687892 7c7974".split()
# Gap, tape, compound: half width in units (from, to), ragged edge, feather, opacity, colour.
JOINTS = (0.5, 1.2, 0.25, 1, 0.8, "403c38"), (10, 17, 0.3, 1, 0.75, "ded6c4"), (14, 22, 2.6, 7, 0.8, "e8e6e0")


class _Canvas:
    """A photograph while it is drawn: `pixels` (H, W, 3), supersampled, in [0, 255]."""

    def __init__(self, rng, size_wh, unit, colours):
        self.rng, self.size_wh, self.unit = rng, size_wh, unit
        y, x = (np.mgrid[: size_wh[1] * SCALE, : size_wh[0] * SCALE].astype("f4") + 0.5) / SCALE
        self.x, self.y, self.pixels = x, y, np.zeros((*x.shape, 3), "f4")
        self.paint(np.ones_like(x), rng.choice(colours), rng.uniform(0.97, 1.03, 3).astype("f4"))

    def spot(self, low, high):
        """A random point, `low` to `high` of the way across and down."""
        return complex(*self.rng.uniform(low, high, 2) * self.size_wh)

    def noise(self, cell, stretch=1.0):
        """Smooth noise (H, W) around 0 with spots `cell` units wide and `stretch` times as high."""
        (high, wide), step = self.x.shape, cell * self.unit * SCALE
        coarse = self.rng.standard_normal((int(high / step / stretch) + 3, int(wide / step) + 3)).astype("f4")
        return np.asarray(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC))

    def stencil(self, polygons, blur=0.0):
        """Coverage (H, W) in [0, 1] of polygons, softened by `blur` units."""
        image = Image.new("L", self.x.shape[::-1])
        for polygon in polygons:
            ImageDraw.Draw(image).polygon((polygon.view(float) * SCALE - 0.5).tolist(), fill=255)
        return np.asarray(image.filter(ImageFilter.GaussianBlur(blur * self.unit * SCALE)), "f4") / 255

    def paint(self, cover, colour, gain=1.0):
        """Lays a colour (six hexadecimal digits, times `gain`) over what `cover` (H, W) says."""
        self.pixels += cover[..., None] * (np.float32(list(bytes.fromhex(colour))) * gain - self.pixels)

    def shade(self, gain):
        self.pixels *= gain[..., None]

    def photograph(self):
        """The finished picture: the light of the room, vignette, lens, noise, highlights that roll off."""
        rng, (wide, high), turn = self.rng, self.size_wh, self.rng.uniform(0, 2 * np.pi)
        x, y = self.x / wide - 0.5, self.y / high - 0.5
        pool = np.exp(-((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.6, 0.2)) ** 2) / 0.3)
        self.shade(rng.uniform(0.88, 1.04) + rng.uniform(0.05, 0.35) * (np.cos(turn) * x + np.sin(turn) * y))
        self.shade((1 + rng.uniform(0, 0.14) * pool) * (1 - rng.uniform(0.1, 0.4) * (x * x + y * y)))
        small = self.pixels.reshape(high, SCALE, wide, SCALE, 3).mean((1, 3))
        small += rng.normal(0, 0.8, small.shape) + rng.normal(0, rng.uniform(0.8, 2.4), (high, wide, 1))
        small = np.where(small > 215, 215 + 40 * np.tanh((small - 215) / 40), small.clip(0))
        return Image.fromarray(small.astype("u1")).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6)))


def _ridge(distance, width):
    return np.exp(-((distance / width) ** 2))


def band(path, more=0.0, part=1.0):
    """The polygon around a path, its half width times `part` and plus `more`."""
    side = 1j * np.gradient(path[0])
    side *= (path[1] * part + more) / abs(side)
    return np.concatenate([path[0] + side, (path[0] - side)[::-1]])


def disc(centre, radius, corners=16):
    """The polygon of a disc; with 4 corners of an upright square."""
    return centre + radius * np.exp(1j * np.pi * (2 * np.arange(corners) + 1) / corners)


def inside(path, size_wh, margin=2):
    """A path's points between (0, 0) and `size_wh`, and those up to `margin` pixels beyond."""
    x, y = path[0].real, path[0].imag
    keep = (abs(x - size_wh[0] / 2) < size_wh[0] / 2 + margin) & (abs(y - size_wh[1] / 2) < size_wh[1] / 2 + margin)
    return path[0][keep], path[1][keep]


def _draw_wall(canvas, kind):
    """Paint or plaster, or the paper of a board; then what may mislead: a stain, a shadow, a pencil line."""
    rng, unit, likely = canvas.rng, canvas.unit, canvas.rng.random(3)
    canvas.shade(1 + rng.uniform(0.01, 0.03) * canvas.noise(90))
    canvas.shade(1 + rng.uniform(0.004, 0.015) * canvas.noise(22))
    if kind == "crack":
        relief = canvas.noise(rng.uniform(2.2, 6)) + 0.6 * canvas.noise(1.3)
        slope = relief - np.roll(relief, (2, 2), (0, 1))  # lit from the upper left
        canvas.shade(
            1 + rng.choice([0.01, 0.025, 0.045]) * (np.clip(slope / slope.std(), -3, 3) + 0.4 * canvas.noise(0.8))
        )
    else:
        canvas.shade(1 + 0.007 * canvas.noise(1.2, 14) + 0.012 * canvas.noise(0.9))
    if likely[0] < 0.25:
        stain = np.clip(0.5 * canvas.noise(80) + 0.2 * canvas.noise(24) + 0.1 * canvas.noise(8) - 0.35, 0, 1)
        canvas.pixels *= 1 - stain[..., None] * np.float32((0.12, 0.15, 0.22)) * rng.uniform(0.6, 1.8)
    if likely[1] < 0.4:
        edge = canvas.spot(0.2, 0.8).real + rng.normal(0, 0.4) * (canvas.y - canvas.y.mean()) - canvas.x
        edge = np.clip(edge / rng.uniform(2, 16) / unit, -30, 30)
        canvas.shade(1 - rng.uniform(0.08, 0.25) / (1 + np.exp(-edge)))
    if likely[2] < 0.35:
        turn = np.exp(1j * (rng.normal(0, 0.1) + rng.choice([0, np.pi / 2])))
        line = band((canvas.spot(0.1, 0.8) + np.array([0, rng.uniform(60, 200)]) * unit * turn, 0.5 * unit))
        canvas.paint(canvas.stencil([line]) * (0.3 + 0.12 * canvas.noise(3)).clip(0, 1), "5c5e64")


def _crack_paths(canvas):
    """A crack as paths: one that thins out, then its branches."""
    rng, unit, reach = canvas.rng, canvas.unit, max(canvas.size_wh) * canvas.rng.uniform(0.3, 0.75)
    centre, reach = canvas.spot(0.3, 0.7), reach * np.exp(1j * rng.uniform(0, 2 * np.pi))
    legs = [(centre - reach, centre + reach * rng.uniform(0.6, 1), rng.choice([0.75, 1.1, 1.6, 2.6]) * unit)]
    paths, rough = [], rng.uniform(0.1, 0.2)
    while legs:
        start, end, half = legs.pop()
        points = np.array([start, end])
        while abs(points[1] - points[0]) > 4 * unit:  # midpoint displacement: as rough at every scale
            step = np.diff(points)
            middle = points[:-1] + step * (0.5 + 1j * rng.normal(0, rough, len(step)))
            points = np.insert(points, np.arange(1, len(points)), middle)
        along = np.linspace(0, 1, len(points))
        swell = np.interp(along, np.linspace(0, 1, 24), rng.normal(1, 0.3, 24)).clip(0.5, 1.8)
        paths.append((points, np.maximum(half * (1 - 0.75 * along**1.5) * swell, 0.55 * unit)))
        for _ in range(rng.choice(4, p=[0.25, 0.35, 0.25, 0.15]) if len(paths) == 1 else 0):
            root, turn = (
                rng.integers(len(points) // 6, len(points) * 4 // 5),
                rng.choice([-1, 1]) * rng.uniform(0.5, 1),
            )
            tip = points[root] + (end - start) * rng.uniform(0.18, 0.4) * np.exp(1j * turn)
            legs.append((points[root], tip, 0.75 * paths[0][1][root]))
    return paths


def _draw_crack(canvas):
    """A gap in a darker tone of its wall, deepest in its middle, with a lit lower lip. Returns its paths."""
    rng, unit, paths = canvas.rng, canvas.unit, _crack_paths(canvas)
    gap = canvas.stencil([band(path) for path in paths], 0.2)
    lip = canvas.stencil([band(path, 0.5 * unit) + (0.9 + 0.9j) * unit for path in paths], 0.6)
    canvas.shade(1 + rng.uniform(0.06, 0.2) * np.clip(lip - gap, 0, 1))
    lost = 1 - np.float32((1, 0.96, 0.9)) * rng.uniform(0.3, 0.55)
    canvas.pixels *= 1 - lost * (gap * (0.82 + 0.18 * np.clip(canvas.noise(5), -1, 1)))[..., None]
    canvas.shade(1 - rng.uniform(0.3, 0.6) * canvas.stencil([band(path, part=0.6) for path in paths], 0.4))
    return paths


def _draw_joint(canvas, turn):
    """A gap, paper tape or joint compound where two boards meet, and rows of screws. Returns its path and theirs."""
    rng, unit, start, ahead = canvas.rng, canvas.unit, canvas.spot(0.28, 0.72), np.exp(1j * turn)
    low, high, rag, feather, opacity, colour = JOINTS[rng.choice(3, p=[0.4, 0.35, 0.25])]
    half, x, y = rng.uniform(low, high), canvas.x - start.real, canvas.y - start.imag
    off = (y * ahead.real - x * ahead.imag) / unit  # units to the side of the centre line
    canvas.shade(1 + rng.normal(0, 0.02) * np.tanh(off / 3) + 0.008 * off * _ridge(off, 14))  # tapered edges
    edge = half + rag * (canvas.noise(28) + 0.4 * canvas.noise(6)) - abs(off)
    if half > 5:  # the compound that the tape lies in
        canvas.paint(0.35 * np.clip((edge + 6) / 6 + 0.3 * canvas.noise(20), 0, 1), "e4e2dc")
    canvas.shade(1 - 0.14 * _ridge(edge + 0.5, 1.1) * (0.3 + 0.7 * (off > 0)))
    canvas.paint(np.clip(edge / feather + 0.5, 0, 1) * opacity, colour, rng.uniform(0.94, 1.04))
    streaks = np.interp(off, np.arange(-60, 60, 1.3), rng.standard_normal(93))  # of the trowel
    canvas.shade(1 + (edge > 0) * (0.008 * streaks + 0.012 * canvas.noise(3) + 0.012 * canvas.noise(12)))
    canvas.shade(1 - rng.uniform(0.07, 0.16) * _ridge(off, 1.1) + 0.04 * _ridge(off - 2.2, 1))
    spots = []
    for row in (half + 6.5, -half - 6.5, rng.uniform(85, 120), -rng.uniform(85, 120)):
        along = np.arange(-500, 500, rng.uniform(30, 46)) + rng.uniform(0, 30)
        shaken = along + 1j * row + rng.normal(0, 0.8, (len(along), 2)) @ (1, 1j)
        spots += list(start + unit * ahead * shaken)
    radius, colour, cover = 1.6, "484442", 0.75
    if rng.random() < 0.2:  # filled already
        radius, colour, cover = rng.uniform(3, 6), "e6e4de", 0.5
    canvas.shade(1 + 0.1 * canvas.stencil([disc(s + 0.8 * unit, (radius + 1) * unit) for s in spots], 0.6))
    heads = [disc(spot, radius * unit * rng.uniform(0.8, 1.2)) for spot in spots]
    canvas.paint(canvas.stencil(heads, radius / 3) * cover, colour)
    screws = np.array(spots), np.full(len(spots), max(radius + 1, 5) * unit)  # what is to be filled, not the head
    return (start + np.arange(-500, 500) * unit * ahead, np.full(1000, half * unit)), screws


def _draw_fittings(canvas, extent_wh, taken):
    """A switch or socket where no `taken` (H, W) pixel is, and skirting or a casing past `extent_wh`."""
    rng, unit, middle = canvas.rng, canvas.unit, canvas.spot(0.15, 0.85)
    half = rng.uniform(15, 24) * unit
    square, inner = disc(middle, 1.41 * half, 4), disc(middle, 1.2 * half, 4)
    if rng.random() < 0.5 and not (canvas.stencil([square], 1) * taken).any():
        canvas.shade(1 - 0.4 * canvas.stencil([square + (1 + 2j) * unit], 2.2))
        canvas.paint(canvas.stencil([square], 0.6), "eeeeea")
        groove = canvas.stencil([inner + (0.3 + 0.8j) * unit], 0.4) - canvas.stencil([inner], 0.4)
        canvas.shade(1 - 0.25 * abs(groove))
        holes = [disc(middle + side * half, 0.1 * half) for side in (-0.25, 0.25)]  # a switch has none
        canvas.paint(canvas.stencil(holes, 0.3) * rng.choice([0, 1]), "302e2d")
    right, bottom = np.where(extent_wh < canvas.size_wh, extent_wh, np.inf)
    depth = np.maximum(canvas.x - right, canvas.y - bottom) / unit
    if depth.max() > 0:
        canvas.shade(1 - 0.3 * _ridge(np.minimum(depth, 0), 4))
        canvas.paint(np.clip(depth + 0.5, 0, 1), rng.choice(TRIMS))
        for at, width, gain in ((0.6, 0.8, -0.3), (3, 1.5, 0.08), (11, 1.2, -0.22), (13, 1.5, 0.08)):
            canvas.shade(1 + gain * _ridge(depth - at, width))


def draw_photograph(rng, kind, size_wh, unit, empty):
    """One photograph, the paths in it of what there is to annotate, and of each joint's screws: points, radii."""
    canvas, paths, screws = _Canvas(rng, size_wh, unit, WALLS if kind == "crack" else BOARDS), [], []
    extent_wh = np.float64(size_wh)
    extent_wh[rng.integers(2)] *= rng.choice([1, rng.uniform(0.78, 0.9)], p=[0.75, 0.25])
    _draw_wall(canvas, kind)
    if kind == "crack" and not empty:
        paths = _draw_crack(canvas)
    elif not empty:
        lean = rng.choice([rng.normal(0, 1), rng.normal(0, 4), rng.uniform(-25, 25)])
        turns = np.radians(rng.permutation([0, 90])[: rng.choice([1, 2], p=[0.75, 0.25])] + lean)
        paths, screws = zip(*(_draw_joint(canvas, turn) for turn in turns), strict=True)
    _draw_fittings(canvas, extent_wh, canvas.stencil([band(path, 9 * unit) for path in paths]))
    return canvas.photograph(), [inside(p, extent_wh) for p in paths], [inside(p, extent_wh, 0) for p in screws]


def copy_photograph(rng, image):
    """A turned, mirrored or brightened copy of a photograph, and the function that moves points with it."""
    quarters, flip, gain = rng.integers(4), rng.random() < 0.5, rng.uniform(0.7, 1.12)
    size_wh, degrees = image.size[::-1] if quarters % 2 else image.size, 90 * quarters
    degrees += rng.choice([0, rng.uniform(-9, 9)], p=[0.4, 0.6])
    turn, old, new = np.exp(1j * np.radians(degrees)), complex(*image.size) / 2, complex(*size_wh) / 2

    def move(points):
        return (-np.conj(points - old) if flip else points - old) * turn + new

    corners = (np.array([0, 1, 1j]) - new) / turn  # Pillow asks where in the photograph each pixel comes from
    origin, right, down = (-np.conj(corners) if flip else corners) + old
    columns = np.array([right - origin, down - origin, origin])
    affine = (*columns.real, *columns.imag)
    copy = image.transform(size_wh, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return copy.point(lambda level: int(level * gain)), move
