"""Centre lines of a mask: its skeleton without spurs, as smooth lines with what lies across them."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d, map_coordinates
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

STEP = 0.25
"""Of the sampling across a line, in pixels."""
SPUR = 1.5
"""A branch shorter than this share of the half width at its root is a corner of the outline, and no branch."""


class Line(NamedTuple):
    """A piece of a centre line with what lies across it; x and y in pixels."""

    points: np.ndarray
    """(N, 2), smoothed, from end to end."""
    left: np.ndarray
    """(M, 2): where cross-sections leave the mask on one side."""
    right: np.ndarray
    """(M, 2): and on the other."""


def trace(inside: np.ndarray) -> tuple[list[Line], np.ndarray, np.ndarray]:
    """Traces one component, bool (H, W), not touching the border.

    Returns:
        Its branches, the ends (E, 2), and the longest path (N, 2), all x and y in pixels.
    """
    distance = distance_transform_edt(inside)
    smooth = gaussian_filter(inside.astype(np.float32), 1 if distance.max() >= 2 else 0.5)
    pixels, graph = prune(np.column_stack(np.nonzero(skeletonize(inside, method="lee"))), distance)
    degree, half = np.diff(graph.indptr), distance[tuple(pixels.T)]

    def follow(chain: list[int]) -> tuple[np.ndarray, np.ndarray]:
        points = _smoothed(pixels[chain][:, ::-1].astype(float), half[chain].mean())
        return points, _drawn_out(points, degree[[chain[0], chain[-1]]] <= 1, smooth, half[chain].mean())

    lines = []
    for chain in branches(graph):
        points, whole = follow(chain)
        lines.append(Line(whole, *_cross_sections(points, smooth, half[chain])))
    return lines, pixels[degree <= 1][:, ::-1], follow(longest_path(graph))[1]


def skeleton_graph(pixels: np.ndarray) -> csr_array:
    """Joins pixels (N, 2) with their neighbours; not diagonally where it goes round the corner too."""
    pairs = cKDTree(pixels).query_pairs(1.5, output_type="ndarray").reshape(-1, 2)
    a, b = pixels[pairs[:, 0]], pixels[pairs[:, 1]]
    known = {tuple(pixel) for pixel in pixels.tolist()}
    corners = zip(a.tolist(), b.tolist(), strict=True)
    round_corner = np.array([(y, far_x) in known or (far_y, x) in known for (y, x), (far_y, far_x) in corners], bool)
    lengths = np.linalg.norm(a - b, axis=1)
    kept = (lengths == 1) | ~round_corner
    one_way = csr_array((lengths[kept], pairs[kept].T), shape=(len(pixels),) * 2)
    return one_way + one_way.T


def prune(pixels: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Takes away the spurs that a skeleton has towards the corners of an outline; what is left has a pixel at least."""
    while True:
        graph = skeleton_graph(pixels)
        degree = np.diff(graph.indptr)
        drop: set[int] = set()
        for chain in branches(graph):
            tip, root = sorted((chain[0], chain[-1]), key=degree.item)
            length = np.linalg.norm(np.diff(pixels[chain], axis=0), axis=1).sum()
            if degree[tip] <= 1 and degree[root] >= 3 and length < SPUR * distance[tuple(pixels[root])]:
                drop |= set(chain) - {root}
        if not drop or len(pixels) - len(drop) < 3:
            return pixels, graph
        pixels = np.delete(pixels, list(drop), axis=0)


def branches(graph: csr_array) -> list[list[int]]:
    """Returns the chains of pixels between ends and crossings, both included, in order; a ring is one, closed."""
    degree, neighbours = np.diff(graph.indptr), np.split(graph.indices, graph.indptr[1:-1])
    seen: set[tuple[int, int]] = set()
    chains = []

    def walk(start: int, following: int) -> list[int]:
        chain = [start]
        while True:
            seen.update(((chain[-1], following), (following, chain[-1])))
            chain.append(following)
            if degree[following] != 2 or following == start:
                return chain
            following = next(int(n) for n in neighbours[following] if n != chain[-2])

    for start in np.argsort(degree == 2, kind="stable").tolist():  # from rings last: all else has been walked by then
        for following in map(int, neighbours[start]):
            if (start, following) not in seen:
                chains.append(walk(start, following))
    return chains or [[int(i)] for i in np.flatnonzero(degree == 0)]


def longest_path(graph: csr_array) -> list[int]:
    """Returns the pixels of the longest shortest path, in order: exact where there are no rings."""
    first = int(np.argmax(dijkstra(graph, indices=0)))
    distances, before = dijkstra(graph, indices=first, return_predecessors=True)
    path = [int(np.argmax(distances))]
    while path[-1] != first:
        path.append(int(before[path[-1]]))
    return path


def _smoothed(points: np.ndarray, half: float) -> np.ndarray:
    """Smooths a chain of pixels (N, 2) and keeps its ends."""
    sigma = float(np.clip(half, 3, 8))
    reach = min(len(points) - 1, round(4 * sigma))
    if reach < 2:
        return points
    padded = np.pad(points, ((reach, reach), (0, 0)), "reflect", reflect_type="odd")
    return gaussian_filter1d(padded, sigma, axis=0)[reach:-reach]


def _sample(smooth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Reads an image at points (..., 2), x and y."""
    return map_coordinates(smooth, np.moveaxis(points[..., ::-1], -1, 0), order=1)


def _drawn_out(points: np.ndarray, free: np.ndarray, smooth: np.ndarray, half: float) -> np.ndarray:
    """Draws a line out at its free ends, the way it goes there, to where the mask ends."""
    if len(points) < 2:
        return points
    back = min(len(points) - 1, max(5, round(half)))
    steps = np.arange(0, 3 * half + 10, STEP)[:, None]
    ends = []
    for end, inner, is_free in ((points[0], points[back], free[0]), (points[-1], points[-1 - back], free[1])):
        way = (end - inner) / np.linalg.norm(end - inner) if (end != inner).any() else np.zeros(2)
        exit_ = _exit(_sample(smooth, end + steps * way)[None])[0] if is_free else 0.0
        ends.append(end + exit_ * way if np.isfinite(exit_) else end)
    return np.concatenate([ends[:1], points, ends[1:]])


def _exit(profiles: np.ndarray) -> np.ndarray:
    """Returns where profiles (N, K), sampled every `STEP`, fall to a half, in pixels; NaN where they do not."""
    below = profiles < 0.5
    first = below.argmax(axis=1)
    found = below.any(axis=1) & (first > 0)
    index = np.maximum(first, 1)
    rows = np.arange(len(profiles))
    inner, outer = profiles[rows, index - 1], profiles[rows, index]
    exits = (index - 1 + (inner - 0.5) / np.where(found, inner - outer, 1)) * STEP
    return np.where(found, exits, np.nan)


def _cross_sections(points: np.ndarray, smooth: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where cross-sections of a line leave the mask on its two sides, (M, 2) each; none near its ends."""
    along = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    inner = (along > half) & (along[-1] - along > half)
    if inner.sum() < 3:
        return np.empty((0, 2)), np.empty((0, 2))
    way = np.gradient(points, axis=0)[inner]
    normal = np.column_stack([-way[:, 1], way[:, 0]]) / np.linalg.norm(way, axis=1, keepdims=True)
    steps = np.arange(0, 2 * half.max() + 3, STEP)[:, None]
    sides = [points[inner, None] + sign * steps * normal[:, None] for sign in (1, -1)]
    exits = [_exit(_sample(smooth, side)) for side in sides]
    good = np.isfinite(exits[0]) & np.isfinite(exits[1])
    return tuple(points[inner][good] + s * e[good, None] * normal[good] for s, e in zip((1, -1), exits, strict=True))
