import base64
import re

import ipywidgets as widgets
import pytest

from drywall_seg.visualization import static
from drywall_seg.visualization.static import WIDGET, WithPicture


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as bundles."""
    bundles = []

    def display(bundle, raw):
        assert raw
        bundles.append(bundle)

    monkeypatch.setattr(static, "display", display)
    return bundles


def test_the_copy_comes_first_and_the_widget_hides_it(shown):
    child = widgets.HTML("live")
    widget = WithPicture([child], html="<b>a copy</b>", text="in words")
    widget._ipython_display_()
    copy, live = shown
    assert copy["text/plain"] == "in words" != live["text/plain"]
    assert "image/png" not in copy
    name = re.match(r'<div class="(dws-static-\w+)"><b>a copy</b></div><script>', copy["text/html"])[1]
    assert live[WIDGET] == {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    style, last = widget.children
    assert style.value == f"<style>.{name}{{display:none}}</style>"
    assert last is child


def test_two_of_them_hide_no_more_than_their_own(shown):
    for _ in range(2):
        WithPicture([], html="")._ipython_display_()
    assert shown[0]["text/html"] != shown[2]["text/html"]


def test_a_png_is_in_the_same_output(shown):
    WithPicture([], html="x", png=b"\x89PNG")._ipython_display_()
    assert base64.b64decode(shown[0]["image/png"]) == b"\x89PNG"
    assert "x" in shown[0]["text/html"]
