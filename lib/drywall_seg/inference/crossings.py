"""Lines that cross: which branches at a crossing are one line that goes straight on."""

import itertools

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

TURN = 45.0
"""Degrees by which a line may turn at a crossing and still be the same line."""
BRIDGE = 4.0
"""Two crossings joined by a branch of at most so many widths are one: lines that cross at 30 degrees
share a piece nearly as long."""
SAME = 1.5
"""Pixels within which the ends of branches meet."""

End = tuple[int, int]
"""Number of a branch, and 0 for where it begins or -1 for where it ends."""


def straight_runs(lines: list[np.ndarray], width: float) -> list[np.ndarray]:
    """Joins the branches of one component to lines that go straight on through its crossings.

    At each crossing the two branches are joined between which a line turns least, then the next two, up to `TURN`
    degrees. What is left over ends at the crossing, on the middle of the other line. A line that bends away from any
    crossing is one. Branches and runs are points (N, 2) in order, x and y in pixels, and so is the width of the lines.
    """
    if len(lines) == 1:
        return lines
    crossings, bridges = _crossings(lines, width)
    partner: dict[End, End] = {}
    for crossing in crossings:
        ends = [end for end in crossing if end[0] not in bridges]
        ways = {end: _way_out(lines[end[0]], end[1], width) for end in ends}
        pairs = [(_turn(ways[a], ways[b]), a, b) for a, b in itertools.combinations(ends, 2) if a[0] != b[0]]
        for turn, a, b in sorted(pairs):
            if turn <= TURN and a not in partner and b not in partner:
                partner[a], partner[b] = b, a
    return _walk(lines, partner, set(range(len(lines))) - bridges)


def _crossings(lines: list[np.ndarray], width: float) -> tuple[list[list[End]], set[int]]:
    """Returns the ends that meet at each crossing, three at least, and the short branches within one."""
    ends = list(itertools.product(range(len(lines)), (0, -1)))
    pairs = cKDTree([lines[number][side] for number, side in ends]).query_pairs(SAME, output_type="ndarray")
    meeting = coo_array((np.ones(len(pairs)), pairs.reshape(-1, 2).T), shape=(len(ends),) * 2)
    count, owners = connected_components(meeting, directed=False)
    groups: list[list[End]] = [[] for _ in range(count)]
    for end, owner in zip(ends, owners, strict=True):
        groups[owner].append(end)
    groups = [group for group in groups if len(group) > 2]
    bridges = set()
    lengths = [np.linalg.norm(np.diff(points, axis=0), axis=1).sum() for points in lines]
    for number in (number for number, length in enumerate(lengths) if length <= BRIDGE * width):
        sides = [group for end in (0, -1) for group in groups if (number, end) in group]
        if len(sides) == 2:  # of one crossing, it is a piece within it
            bridges.add(number)
            groups = [group for group in groups if group not in sides] + [sides[0] + sides[1] * (sides[0] != sides[1])]
    return (groups, bridges) if len(bridges) < len(lines) else ([], set())


def _way_out(points: np.ndarray, side: int, width: float) -> np.ndarray:
    """Returns the way (2) that a branch takes from a crossing, seen beyond where the other line bends it."""
    points = points if side == 0 else points[::-1]
    along = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    near, far = np.searchsorted(along, (min(width, along[-1] / 3), min(4 * width, along[-1])))
    return points[far] - points[near] if near < far else points[-1] - points[0]


def _turn(a: np.ndarray, b: np.ndarray) -> float:
    """Returns by how many degrees a line turns that comes in along one way out and leaves by the other."""
    return float(np.degrees(np.arccos(np.clip(-(a @ b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1, 1))))


def _walk(lines: list[np.ndarray], partner: dict[End, End], left: set[int]) -> list[np.ndarray]:
    """Follows the joined branches from end to end; rings last, from anywhere."""
    runs = []
    starts = [(number, side) for number in sorted(left) for side in (0, -1) if (number, side) not in partner]
    for start in [*starts, *((number, 0) for number in sorted(left))]:
        end, pieces = start, []
        while end is not None and end[0] in left:
            left.remove(end[0])
            pieces.append(lines[end[0]] if end[1] == 0 else lines[end[0]][::-1])
            end = partner.get((end[0], -1 - end[1]))
        if pieces:
            ring = end == start and len(pieces) > 1
            runs.append(np.concatenate([*pieces, pieces[0][:1]] if ring else pieces))
    return runs
