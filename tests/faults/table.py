"""docs/reliability.md: what was tried to break the project, how often, and what happened, as the tests that try it say.

A test that is marked `fault(category, outcome)` is one case of it, or as many as it counts itself with `tally`.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

REFUSED, READ, SAME = "refused with one clear error", "read correctly", "the same in the end"
OUTCOMES = (REFUSED, READ, SAME)
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

CATEGORIES = {
    "zips": "names that lead out, links, bombs by ratio, by number and by size, names twice, encrypted, cut",
    "images": "dimensions of a bomb, cut, named wrongly, no file, CMYK, 16 bit, animated, one pixel, 1 x 20,000, NaN",
    "COCO": "numbers that are none, ids missing or twice, run lengths of another size, nesting, paths for names",
    "checkpoints": "a pickle in disguise, other shapes, cut, another model's, NaN, settings and thresholds of nonsense",
    "own files": "journals, logs, settings and corrections that somebody else, or a fault, has written into",
    "names": "of runs, photos, folders and sentences: dots, NUL, line ends, 255 bytes, other scripts, case, no UTF-8",
    "downloads": "cut, stalled, endless, of another file, from servers that fail or say no, without a network",
    "full disk": "each writer on a disk without room, then again after making room",
    "read-only": "each place where something is written, and data that may only be read",
    "two at once": "a second process on the same run, the same masks or the same download",
    "killed writing": "prepare, predict, inspect, evaluate and train, killed at each of their writes and started again",
    "killed training": "at random moments, around renames, in the middle of a state; a state is damaged",
    "killed prediction": "ten times over a thousand photos of which fifty are broken; a worker of several is killed",
    "machines": "two processes, two workers, a bucket, no torch; memory that must not grow",
}
"""What was tried, in words, in the order of the table."""

HEAD = """# What was tried to break it

Written by the tests that try it:

```bash
make test-faults
```

*Refused*: one error that names the file and the value, and nothing is written. *The same in the end*: stopped and
started again, it has the files of what nothing disturbed. *Silent*: neither refused nor read correctly. *Lost*:
something that was there, or should be, is not.
"""


@dataclass
class Case:
    """A test as one run of it reported it."""

    category: str
    outcome: str
    """What it is to be."""
    counted: Counter = field(default_factory=Counter)
    """Cases by outcome, where the test counts them itself."""
    failed: bool = False
    skipped: bool = False

    @property
    def counts(self) -> Counter:
        """Cases by what happened: an outcome, `silent` or `lost` where it was not what it was to be, or `not run`."""
        counts = self.counted or Counter({self.outcome: 1})
        if self.failed:
            return Counter({"lost" if self.outcome == SAME else "silent": counts.total()})
        return Counter({"not run": 1}) if self.skipped else counts


def words_of(node_id: str) -> str:
    """Returns the words of a test's name.

    >>> words_of("tests/a.py::test_a_bomb_is_refused[png]")
    'a bomb is refused'
    """
    return re.sub(r"\[.*", "", node_id.rpartition("::test_")[2] or node_id, flags=re.DOTALL).replace("_", " ")


def render(cases: dict[str, Case]) -> str:
    """Writes the page of cases by their tests' ids."""
    columns = [*OUTCOMES, "silent", "lost"]
    skipped = [node_id for node_id, case in cases.items() if case.counts["not run"]]
    lines = [
        HEAD,
        _row(["", "what was tried", "tests", "cases", *columns]),
        _row(["---", "---", *["---:"] * (len(columns) + 2)]),
    ]
    total = Counter()
    for category, words in CATEGORIES.items():
        own = [case for case in cases.values() if case.category == category]
        counts = sum((case.counts for case in own), Counter())
        total += counts + Counter(tests=len(own))
        lines.append(_row([f"**{category}**", words, len(own), counts.total(), *(counts[c] for c in columns)]))
    n_cases = total.total() - total["tests"]
    lines.append(_row(["**all**", "", total["tests"], n_cases, *(total[c] for c in columns)]))
    lines += ["", f"**{n_cases:,} cases: {total['lost']} lost, {total['silent']} silent.**"]
    if skipped:
        lines += ["", f"Not run on this machine: {', '.join(sorted(set(map(words_of, skipped))))}."]
    lines += ["", "## The tests", "", _row(["", "test", "number", "cases"]), _row(["---", "---", "---:", "---:"])]
    for (category, test), number in sorted(count_tests(cases).items(), key=_order):
        own = [c for node_id, c in cases.items() if (c.category, words_of(node_id)) == (category, test)]
        lines.append(_row([category, test, number, sum(case.counts.total() for case in own)]))
    lines += ["", "They are in:", "", *(f"- `{name}`" for name in sorted({i.partition("::")[0] for i in cases}))]
    return "\n".join(lines) + "\n"


def files_of(page: str) -> set[str]:
    """Reads from a page which files its tests are in."""
    return set(re.findall(r"^- `(.+)`$", page, re.MULTILINE))


def count_tests(cases: dict[str, Case]) -> Counter:
    """Counts tests by category and words."""
    return Counter((case.category, words_of(node_id)) for node_id, case in cases.items())


def read_tests(page: str) -> Counter:
    """Reads from a page what `count_tests` counted when it was written."""
    rows = re.findall(r"^\| ([^|*]+) \| ([^|]+) \| (\d+) \| \d+ \|$", page, re.MULTILINE)
    return Counter({(category, test): int(number) for category, test, number in rows})


def _order(item: tuple[tuple[str, str], int]) -> tuple[int, str]:
    (category, test), _ = item
    return list(CATEGORIES).index(category), test


def _row(cells: list) -> str:
    return f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |")
