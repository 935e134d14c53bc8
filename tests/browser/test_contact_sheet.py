"""The contact sheet of 04, driven in Voila and JupyterLab; and what of it stays in an executed copy."""

import pytest

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import prepare
from drywall_seg.evaluation.evaluate import evaluate, run_predictor
from drywall_seg.runs import write_csv, write_json

from . import pages

pytestmark = pytest.mark.slow

CELL = """
import os
os.chdir({folder!r})
from drywall_seg.config import run_config
from drywall_seg.data.manifest import prepare
from drywall_seg.visualization.sheet_browser import browse_panels
config = run_config(run_name="sheet")
browse_panels(config, prepare(config), page_size=4)
"""


@pytest.fixture
def run(project):
    """An evaluated run in a project of its own, and the source of a cell that shows it."""
    config = resolve_config(run_name="sheet")
    folder = project / "outputs" / "sheet"
    table, _ = evaluate(run_predictor(config), prepare(config), "test", folder / "masks")
    write_csv(folder / "per_image.csv", table)
    write_json(folder / "config.json", config.to_dict())
    return table, CELL.format(folder=str(project))


@pytest.mark.parametrize("where", ["voila", "lab"])
def test_it_is_filtered_sorted_and_paged(where, run, write_notebook, request, keep_picture):
    table, source = run
    page = request.getfixturevalue(f"open_{where}")(write_notebook("sheet", source), ".widget-html .dws-sheet-figures")
    pages_ = -(-len(table) // 4)
    status = page.locator(".widget-label").filter(has_text="page ")
    assert status.text_content().startswith(f"page 1 of {pages_}")
    figures = page.locator(".widget-html .dws-sheet-figures")
    assert figures.count() == 4
    worst = page.locator(".widget-html", has=page.locator(".dws-sheet-figures")).first.text_content()
    assert f"IoU {table.iou.min():.2f}" in worst
    page.get_by_role("button", name="Next").press("Enter")
    status.filter(has_text=f"page 2 of {pages_}").wait_for()
    page.locator(".widget-dropdown select").first.select_option("joint_line")
    lines = table[table.label == "joint_line"]
    status.filter(has_text=f"page 1 of {-(-len(lines) // 4)}, {lines.image_id.nunique()} images").wait_for()
    keep_picture(page, f"sheet {where}")
    if where == "voila":
        page.set_viewport_size({"width": 390, "height": 844})
        keep_picture(page, "sheet voila phone")
    pages.axe(page, ".widget-vbox")
    pages.quiet(page)


def test_the_first_page_stays_in_an_executed_copy(run, executed_html, write_notebook, page, keep_picture):
    _, source = run
    opened = page()
    opened.goto(executed_html(write_notebook("sheet", source)).as_uri())
    assert opened.locator("[class^=dws-static] .dws-sheet-figures:visible").count() == 4
    keep_picture(opened, "sheet exported")
    pages.axe(opened, "[class^=dws-static]")
    pages.quiet(opened)
