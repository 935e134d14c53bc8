"""Counts the cases of docs/reliability.md; with RELIABILITY=FILE they are written there, from any number of workers.

`tests/conftest.py` takes the hooks from here: the process that gathers the reports knows of no conftest below that one.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.table import Case

CASES, REPORTED = pytest.StashKey[dict[str, Case]](), {}


@pytest.fixture
def tally(record_property):
    """Counts the cases of a test that tries more than one: `tally(READ, 37)`."""
    return lambda outcome, n: record_property("tally", [outcome, n])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Notes all cases, also those that are deselected later, and lets the reports of each say what it is."""
    cases = config.stash[CASES] = {}
    for item in items:
        if marker := item.get_closest_marker("fault"):
            category, outcome = marker.args
            assert category in table.CATEGORIES and outcome in table.OUTCOMES, item.nodeid
            cases[item.nodeid] = Case(category, outcome)
            item.user_properties.append(("fault", [category, outcome]))


def pytest_runtest_logreport(report):
    properties = report.user_properties
    for category, outcome in (value for name, value in properties if name == "fault"):
        case = REPORTED.setdefault(report.nodeid, Case(category, outcome))
        case.failed |= report.failed
        case.skipped |= report.skipped
        if report.when == "teardown":
            for _, (counted, n) in (pair for pair in properties if pair[0] == "tally"):
                case.counted += Counter({counted: n})


def pytest_terminal_summary(terminalreporter, config):
    path = os.environ.get("RELIABILITY")
    if path and not hasattr(config, "workerinput"):
        page = table.render(REPORTED)
        Path(path).write_text(page, encoding="utf-8")
        terminalreporter.write_sep("=", f"what was tried: {path}")
        terminalreporter.write_line(page[page.index("| |") : page.index("\n## ")])
