"""The contact sheet of a run in a notebook: what to show, in which order, page by page."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as widgets
import pandas as pd

from drywall_seg.config import close_match
from drywall_seg.data.manifest import Manifest
from drywall_seg.prompts import LABELS
from drywall_seg.settings import RunConfig
from drywall_seg.visualization.contact_sheet import predict_when_needed, render_error, render_sheet
from drywall_seg.visualization.sheet_rows import ORDERS, SPLITS, choose_rows, order_rows, orders_of, sheet_rows
from drywall_seg.visualization.static import WithPicture

WORKING = "Drawing page…"
ALL = ""
"""Stands for all labels in the list: None is nothing chosen to ipywidgets."""


def browse_panels(
    config: RunConfig,
    manifest: Manifest,
    other_run: str | None = None,
    order: str = "worst",
    label: str | None = None,
    page_size: int = 6,
) -> WithPicture:
    """Shows the rows of an evaluated run as Original | Ground truth | Prediction, to filter, sort and page through.

    Only the files of the page in view are opened. Val and train, which were not evaluated, can be shown too: their
    masks are predicted when their page is, by a model that is loaded then.

    Args:
        config: The run.
        manifest: The data that it was evaluated on.
        other_run: Name of an evaluated run, whose masks stand beside; None for none.
        order: The order to begin with, one of `sheet_rows.ORDERS`.
        label: The label to begin with; None for all.
        page_size: Rows on a page.

    Returns:
        A widget; a saved notebook keeps the page that it begins with.

    Raises:
        FileNotFoundError: If one of the runs was not evaluated.
        ValueError: If an argument is unknown or has nothing to go by, if the run was evaluated on other data, or if
            the other run has no scored image in common with it.
    """
    if page_size < 1:
        raise ValueError(f"page_size is {page_size}; a page has at least one row")
    rows = sheet_rows(config, manifest, other_run)
    predict = predict_when_needed(config)
    render = partial(render_sheet, config=config, manifest=manifest, other_run=other_run, predict=predict)
    browser = Browser(rows, order, label, page_size, render)
    first = f"{ORDERS[browser.order.value][0]}, {browser.status.value}"
    row = widgets.Layout(flex_flow="row wrap")
    return WithPicture(
        [
            widgets.HBox([browser.label, browser.split, browser.order], layout=row),
            widgets.HBox([browser.previous, browser.next, browser.status], layout=row),
            browser.sheet,
        ],
        html=f"<p>{first}. Run this cell to filter, sort and page on.</p>\n{browser.sheet.value}",
        text=f"run {config.run_name}: {first}",
    )


class Browser:
    """The controls, with the labels and splits that there are, test first, and the rows that they choose from."""

    def __init__(
        self, rows: pd.DataFrame, order: str, label: str | None, page_size: int, render: Callable[[pd.DataFrame], str]
    ):
        labels = [name for name in LABELS if (rows.label == name).any()]
        if label is not None and label not in labels:
            raise ValueError(f"unknown label {label!r}{close_match(label, labels)}")
        if order not in ORDERS or (order not in orders_of(rows) and rows.iou.notna().any()):
            reason = "; no image has what it goes by" if order in ORDERS else close_match(order, list(ORDERS))
            raise ValueError(f"unknown order {order!r}{reason}")
        splits = [name for name in SPLITS if (rows.split == name).any()]
        self.rows, self.page_size, self.render, self.offering = rows, page_size, render, False
        self.label = widgets.Dropdown(options=[("all", ALL), *((name, name) for name in labels)], description="Label")
        self.split = widgets.Dropdown(options=splits, description="Split")
        self.order = widgets.Dropdown(description="Order")
        self.previous = widgets.Button(description="Previous", layout=widgets.Layout(width="auto"))
        self.next = widgets.Button(description="Next", layout=widgets.Layout(width="auto"))
        self.status, self.sheet = widgets.Label(), widgets.HTML()
        self.label.value = label or ALL
        self.offer_orders(order)
        self.draw(0)
        for control in (self.label, self.split, self.order):
            control.observe(self.choose, "value")
        self.previous.on_click(lambda _: self.show(self.page - 1))
        self.next.on_click(lambda _: self.show(self.page + 1))

    def chosen(self) -> pd.DataFrame:
        """Returns the rows of the label and the split."""
        return choose_rows(self.rows, self.label.value or None, self.split.value)

    def offer_orders(self, wanted: str) -> None:
        """Offers the orders that the chosen rows can be laid in, and takes the wanted one if it is among them."""
        offered = orders_of(self.chosen())
        self.order.options = [(ORDERS[name][0], name) for name in offered]
        self.order.value = wanted if wanted in offered else offered[0]

    def draw(self, page: int) -> None:
        """Draws a page of the chosen rows, counted from 0, the nearest one that there is."""
        chosen = order_rows(self.chosen(), self.order.value)
        n_pages = max(1, -(-len(chosen) // self.page_size))
        self.page = min(max(page, 0), n_pages - 1)
        self.previous.disabled, self.next.disabled = self.page == 0, self.page == n_pages - 1
        self.sheet.value = self.render(chosen[self.page * self.page_size :][: self.page_size])
        n_images, n_rows = chosen.image_id.nunique(), len(chosen)
        shown = f"{n_images} image{'' if n_images == 1 else 's'}"
        if n_rows > n_images:  # of several labels
            shown += f" in {n_rows} rows"
        self.status.value = f"page {self.page + 1} of {n_pages}, {shown}"

    def show(self, page: int) -> None:
        """Draws a page, or shows the error, since what a callback raises is written where nobody looks."""
        self.status.value = WORKING
        try:
            self.draw(page)
        except Exception as error:
            self.status.value = "This page could not be drawn."
            self.sheet.value = render_error(f"{type(error).__name__}: {error}")

    def choose(self, _: Any) -> None:
        """Shows the first page of what is chosen now."""
        if self.offering:  # which changes the order
            return
        self.offering = True
        self.offer_orders(self.order.value)
        self.offering = False
        self.show(0)
