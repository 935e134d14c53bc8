"""The means of the browser tests, on stand-ins; and that their checks can fail."""

import json
import sys
from importlib.metadata import version
from statistics import median

import pytest

from . import pages, timing

pytestmark = pytest.mark.slow

SLIDER = """
import base64, io
import ipywidgets, numpy as np
from PIL import Image

def png(grey):
    out = io.BytesIO()
    Image.fromarray(np.full((352, 352), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()

slider = ipywidgets.IntSlider(value=100, max=200, description="Grey")
image = ipywidgets.Image(value=png(100))
slider.observe(lambda change: setattr(image, "value", png(change.new)), "value")
ipywidgets.VBox([slider, image])
"""
# Without data-lm-suppress-shortcuts JupyterLab 4 takes the arrow keys to go from cell to cell.
CANVAS = '''
from IPython.display import HTML
HTML("""<label>Red <input id="red" data-lm-suppress-shortcuts="true" type="range" min="0" max="255" value="9"></label>
<canvas id="square" width="64" height="64" role="img" aria-label="A red square"></canvas>
<script>(() => {
  const red = document.getElementById("red"), canvas = document.getElementById("square");
  red.addEventListener("input", () => {
    const pen = canvas.getContext("2d");
    pen.fillStyle = `rgb(${red.value}, 0, 0)`;
    pen.fillRect(0, 0, 64, 64);
    canvas.dispatchEvent(new CustomEvent("drawn"));
  });
})();</script>""")
'''
VERSIONS = """
import json, sys
from importlib.metadata import version
import drywall_seg, torch
print(json.dumps([sys.executable] + [version(n) for n in ("ipywidgets", "ipykernel", "ipython", "traitlets")]))
"""
RED = "document.getElementById('square').getContext('2d').getImageData(9, 9, 1, 1).data[0]"


@pytest.fixture
def html(page, tmp_path):
    """`html("text")`: a page of this body, from a file."""

    def open_(body):
        path = tmp_path / "page.html"
        path.write_text(f'<!DOCTYPE html><html lang="en"><head><title>t</title></head><body>{body}</body></html>')
        opened = page()
        opened.goto(path.as_uri())
        return opened

    return open_


@pytest.fixture(params=["voila", "jupyterlab"])
def open_notebook(request):
    """`open_voila` and `open_lab`, one after the other."""
    opener = request.getfixturevalue({"voila": "open_voila", "jupyterlab": "open_lab"}[request.param])
    opener.where = request.param
    return opener


ICONS = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@^5/css/all.min.css"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<script>console.error('no good')</script>", "no good"),
        ("<script>nothing.here</script>", "nothing is not defined"),
        ("<img alt='' src='https://example.org/a.png'>", "request to https://example.org/a.png"),
        ("<script>new WebSocket('ws://example.org/s')</script>", "request to ws://example.org/s"),
        (f"<link rel='stylesheet' href='{ICONS}'>", "fontawesome"),
    ],
)
def test_quiet_fails(html, body, found):
    with pytest.raises(AssertionError, match=found):
        pages.quiet(html(body))


def test_quiet_passes(html):
    pages.quiet(html("<p>text</p><script>console.log('fine'); fetch('data:text/plain,a')</script>"))


def test_axe_fails_with_the_rule_and_the_node(html):
    opened = html("<main><img src='data:,'><p>text</p></main>")
    with pytest.raises(AssertionError, match=r"image-alt \(critical\).*<img"):
        pages.axe(opened)
    pages.axe(opened, "p")


def test_the_kernel_is_this_environment(open_notebook, write_notebook, capsys):
    opened = open_notebook(write_notebook("versions", VERSIONS), ".jp-OutputArea-output pre")
    shown = json.loads(opened.locator(".jp-OutputArea-output pre").first.text_content())
    assert shown == [sys.executable] + [version(n) for n in ("ipywidgets", "ipykernel", "ipython", "traitlets")]
    if open_notebook.where == "jupyterlab":
        config = json.loads(opened.locator("#jupyter-config-data").text_content())
        assert config["appVersion"] == version("jupyterlab")
    with capsys.disabled():
        print(f"\n{open_notebook.where}: python, ipywidgets, ipykernel, ipython, traitlets {shown}")
    pages.quiet(opened)


def test_a_slider_changes_a_picture(open_notebook, write_notebook, capsys):
    opened = open_notebook(write_notebook("slider", SLIDER), "img.widget-image")
    before = opened.locator("img.widget-image").get_attribute("src")
    handle = opened.locator(".noUi-handle, .ui-slider-handle")  # ipywidgets 8, 7
    found = timing.spans(opened, lambda i: handle.press("ArrowRight"), target="img.widget-image")
    assert opened.locator("img.widget-image").get_attribute("src") != before
    assert opened.locator(".widget-readout").text_content() == "120"
    with capsys.disabled():
        print(f"\n{open_notebook.where}: {median(found):.0f} ms, median of {len(found)}, {max(found):.0f} at most")
    pages.quiet(opened)


@pytest.mark.parametrize("viewport", ["wide", "phone"])
@pytest.mark.parametrize("where", ["voila", "jupyterlab", "html"])
def test_a_canvas_is_drawn(where, viewport, request, write_notebook, capsys):
    notebook = write_notebook("canvas", CANVAS)
    if where == "html":
        opened = request.getfixturevalue("page")(viewport)
        opened.goto(request.getfixturevalue("executed_html")(notebook).as_uri())
    else:
        opener = request.getfixturevalue({"voila": "open_voila", "jupyterlab": "open_lab"}[where])
        opened = opener(notebook, "#square", viewport)
    assert opened.viewport_size["width"] == {"wide": 1280, "phone": 390}[viewport]
    assert opened.evaluate(RED) == 0
    press = lambda i: opened.locator("#red").press("ArrowRight")  # noqa: E731
    found = timing.spans(opened, press, n=50, start="input", end="drawn", target="#square")
    assert opened.evaluate(RED) == 59
    with capsys.disabled():
        print(f"\n{where}, {viewport}: {median(found):.1f} ms, median of {len(found)}")
    pages.axe(opened, "#red")
    pages.quiet(opened)


def test_exported_html_asks_for_its_own_file_alone(executed_html, write_notebook, page):
    path = executed_html(write_notebook("slider", SLIDER))  # with a widget's state, which brings nbconvert's renderer
    opened = page()
    opened.goto(path.as_uri())
    opened.wait_for_load_state("networkidle")
    assert "widget-state+json" in path.read_text()
    assert [url for url in pages.RECORDS[opened].requests if not url.startswith("data:")] == [path.as_uri()]
    pages.quiet(opened)
