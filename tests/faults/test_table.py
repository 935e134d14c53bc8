from collections import Counter

import pytest

from tests.faults.counting import CASES
from tests.faults.table import PAGE, READ, REFUSED, SAME, Case, count_tests, files_of, read_tests, render


def test_a_page_worked_by_hand():
    cases = {
        "tests/a.py::test_a_bomb_is_refused[one]": Case("zips", REFUSED),
        "tests/a.py::test_a_bomb_is_refused[two]": Case("zips", REFUSED, failed=True),
        "tests/a.py::test_at_random": Case("COCO", REFUSED, Counter({REFUSED: 7, READ: 3})),
        "tests/b.py::test_killed": Case("killed training", SAME, Counter({SAME: 20})),
        "tests/b.py::test_killed_too": Case("killed training", SAME, Counter({SAME: 5}), failed=True),
        "tests/b.py::test_with_a_cluster": Case("machines", SAME, skipped=True),
    }
    page = render(cases)
    rows = {row.split("**")[1]: row.split(" | ", 2)[2] for row in page.splitlines() if row.startswith("| **")}
    assert rows["zips"] == "2 | 2 | 1 | 0 | 0 | 1 | 0 |"
    assert rows["COCO"] == "1 | 10 | 7 | 3 | 0 | 0 | 0 |"
    assert rows["killed training"] == "2 | 25 | 0 | 0 | 20 | 0 | 5 |"
    assert rows["machines"] == "1 | 1 | 0 | 0 | 0 | 0 | 0 |"
    assert "**38 cases: 5 lost, 1 silent.**" in page
    assert "Not run on this machine: with a cluster." in page
    assert files_of(page) == {"tests/a.py", "tests/b.py"}
    assert (
        read_tests(page)
        == count_tests(cases)
        == {
            ("zips", "a bomb is refused"): 2,
            ("COCO", "at random"): 1,
            ("killed training", "killed"): 1,
            ("killed training", "killed too"): 1,
            ("machines", "with a cluster"): 1,
        }
    )


def test_the_page_is_this_suites(request):
    cases = request.config.stash[CASES]
    page = PAGE.read_text()
    if missing := files_of(page) - {node_id.partition("::")[0] for node_id in cases}:
        pytest.skip(f"only a part of the suite was collected, not {sorted(missing)[0]}")
    assert read_tests(page) == count_tests(cases), "run `make test-faults`, which writes docs/reliability.md anew"
    assert ": 0 lost, 0 silent.**" in page and "Not run" not in page
