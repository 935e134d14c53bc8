import itertools
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

from . import pages, servers

HERE = Path(__file__).parent
# In the place of nbconvert's addresses on a CDN; mermaid's is asked only where a cell shows a diagram. As typed:
#   jupyter nbconvert --to html --HTMLExporter.require_js_url=data:text/javascript, \
#     --HTMLExporter.mathjax_url=data:text/javascript, --HTMLExporter.widget_renderer_url=data:text/javascript, x.ipynb
CDN = ("require_js_url", "mathjax_url", "widget_renderer_url")
NO_CDN = [f"--HTMLExporter.{name}=data:text/javascript," for name in CDN]


# What is run before this page has the kernel's answer is lost, and the toolbar says idle before that. JupyterLab 4
# shows its own state; 3.6 ignores the option that would: there the server's and the toolbar's word.
KERNEL_READY = """async () => {
  if (window.jupyterapp) {
    const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && kernel.status === "idle";
  }
  const sessions = await (await fetch("/api/sessions")).json();
  const kernel = sessions.find(session => location.pathname.endsWith("/" + session.path))?.kernel;
  const shown = document.querySelector(".jp-Notebook-ExecutionIndicator")?.dataset.status;
  return kernel?.connections > 0 && kernel.execution_state === "idle" && shown === "idle";
}"""


def wait_until(page, true, what, seconds=60):
    """Asks `true()` until it is. Not wait_for_function, which takes an async function's promise for a yes."""
    for _ in range(10 * seconds):
        if true():
            return
        page.wait_for_timeout(100)
    raise TimeoutError(f"not in {seconds} s: {what()}")


def missing():
    """What the browser tests lack here, in words; empty if nothing."""
    wanted = [name for name in ("playwright", "jupyterlab", "voila", "nbconvert") if not find_spec(name)]
    wanted += [] if shutil.which("chromium") else ["chromium"]
    wanted += [] if pages.AXE.exists() else ["axe-core"]
    return f"{', '.join(wanted)} missing: make test-browser" if wanted else ""


def pytest_collection_modifyitems(items):
    own, reason = [item for item in items if item.path.is_relative_to(HERE)], missing()
    if own and reason and os.environ.get("BROWSER") == "required":  # make test-browser, which has installed it all
        raise pytest.UsageError(reason)
    for item in own if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


# Of the package, not of the session: playwright's event loop would still run under the tests of other folders.
@pytest.fixture(scope="package")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Each launch has an empty profile of its own.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=pages.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """`page("wide")` or `page("phone")`: a new page, closed after the test."""
    opened = []

    def open_page(viewport="wide", **options):
        opened.append(pages.open_page(browser, viewport, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()
        del pages.RECORDS[one]


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """The project's folder that Voila and JupyterLab serve."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="package")
def environment(tmp_path_factory):
    return servers.jupyter_environment(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="package")
def write_notebook(folder):
    """`write_notebook("name", "source", ...)`: a notebook of these code cells in that folder."""

    def write(name, *sources):
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        path = folder / f"{name}.ipynb"
        nbformat.write(book, path)
        return path

    return write


@pytest.fixture(scope="package")
def voila(folder, environment):
    with servers.serve(servers.VOILA, folder, environment, "/") as url:
        yield url


@pytest.fixture(scope="package")
def lab(folder, environment):
    with servers.serve(servers.LAB, folder, environment, "/api") as url:
        yield url


@pytest.fixture
def open_voila(voila, page):
    """`open_voila(notebook)`: its page, when what it shows is there (`wait_for`, a selector)."""

    def open_(notebook, wait_for=".jupyter-widgets", viewport="wide"):
        opened = page(viewport)
        opened.goto(f"{voila}/voila/render/{notebook.name}", wait_until="commit")
        opened.locator(wait_for).first.wait_for(timeout=60_000)
        return opened

    return open_


@pytest.fixture
def open_lab(lab, page):
    """`open_lab(notebook)`: its page in JupyterLab, when all cells have been run by the menu, `wait_for` there."""
    numbers = itertools.count()

    def open_(notebook, wait_for=".jp-OutputArea-output", viewport="wide"):
        opened = page(viewport)
        opened.goto(f"{lab}/lab/workspaces/test-{next(numbers)}/tree/{notebook.name}?reset", wait_until="commit")
        cells = opened.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt")
        cells.first.wait_for(timeout=60_000)
        wait_until(opened, lambda: opened.evaluate(KERNEL_READY), lambda: "a kernel that is idle")
        opened.get_by_role("menuitem", name="Run", exact=True).click()
        opened.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        done = "prompts => prompts.every(p => /\\[\\d+\\]/.test(p.textContent))"
        wait_until(opened, lambda: cells.evaluate_all(done), cells.all_text_contents)
        opened.locator(wait_for).first.wait_for(timeout=60_000)
        return opened

    yield open_
    servers.shut_down_kernels(lab)


@pytest.fixture
def executed_html(environment, tmp_path):
    """`executed_html(notebook)`: the HTML of its papermill copy, one file that needs no network."""

    def export(notebook):
        copy = tmp_path / notebook.name
        run = [sys.executable, "-m"]
        # Commands of their own: papermill's event loop and playwright's do not go together.
        papermill = [*run, "papermill", notebook, copy, "--no-progress-bar"]
        nbconvert = [*run, "nbconvert", "--to", "html", *NO_CDN, copy]
        for command in (papermill, nbconvert):
            done = subprocess.run(command, cwd=notebook.parent, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return copy.with_suffix(".html")

    return export


@pytest.fixture
def figures(capsys):
    """`figures("text")`: a measured figure, printed whatever becomes of the test."""

    def say(line):
        with capsys.disabled():
            print(f"\n{line}")

    return say


@pytest.fixture
def keep_picture():
    """`keep_picture(page, "name")`: a picture of the whole page in the folder that LOOK names, to look at."""

    def keep(page, name):
        if folder := os.environ.get("LOOK"):
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep
