"""A widget that leaves a picture: saved notebooks keep no widgets, so what is to be seen in them is shown beside it."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from uuid import uuid4

import ipywidgets as widgets
from IPython.display import display

WIDGET = "application/vnd.jupyter.widget-view+json"


class WithPicture(widgets.VBox):
    """A column of widgets under a static copy, which is hidden wherever the widgets live.

    What hides it is a style sheet that is itself a widget: a saved notebook, its HTML export and a page on GitHub
    have none, and there the copy is what one sees.

    Args:
        children: The widgets.
        html: The static copy, HTML that is safe already.
        png: The same as a PNG, for what shows no HTML; None to leave it out.
        text: The same in a few words, for a terminal.
    """

    def __init__(self, children: Sequence[widgets.Widget], html: str, png: bytes | None = None, text: str = "a widget"):
        name = f"dws-static-{uuid4().hex}"
        super().__init__([widgets.HTML(f"<style>.{name}{{display:none}}</style>"), *children])
        script = files("drywall_seg.visualization").joinpath("assets/widget_help.js").read_text(encoding="utf-8")
        named = f'<script>((name) => {{\n{script}}})("{name}");</script>'
        self._static = {"text/html": f'<div class="{name}">{html}</div>{named}', "text/plain": text}
        if png is not None:
            self._static["image/png"] = base64.b64encode(png).decode()

    def _ipython_display_(self, **_: Any) -> None:
        """Shows the copy and then the widgets; IPython asks for this first, in ipywidgets 7 and 8 alike."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        display(self._static, raw=True)
        display({WIDGET: view, "text/plain": "(widgets: run this cell)"}, raw=True)
