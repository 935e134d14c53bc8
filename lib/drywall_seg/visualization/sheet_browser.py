"""The contact sheet of a run in a notebook: what to show, in which order, page by page."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
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
    controls = _controls(rows, order, label)
    predict = predict_when_needed(config)
    render = partial(render_sheet, config=config, manifest=manifest, other_run=other_run, predict=predict)
    draw = partial(_draw, controls, rows, page_size, render)
    draw(0)
    _connect(controls, rows, draw)
    first = f"{ORDERS[controls.order.value][0]}, {controls.status.value}"
    row = widgets.Layout(flex_flow="row wrap")
    return WithPicture(
        [
            widgets.HBox([controls.label, controls.split, controls.order], layout=row),
            widgets.HBox([controls.previous, controls.next, controls.status], layout=row),
            controls.sheet,
        ],
        html=f"<p>{first}. Run this cell to filter, sort and page on.</p>\n{controls.sheet.value}",
        text=f"run {config.run_name}: {first}",
    )


def _controls(rows: pd.DataFrame, order: str, label: str | None) -> SimpleNamespace:
    """Makes the controls, with the labels and splits that there are, test first; `page` counts from 0."""
    labels = [name for name in LABELS if (rows.label == name).any()]
    if label is not None and label not in labels:
        raise ValueError(f"unknown label {label!r}{close_match(label, labels)}")
    if order not in ORDERS or (order not in orders_of(rows) and rows.iou.notna().any()):
        reason = "; no image has what it goes by" if order in ORDERS else close_match(order, list(ORDERS))
        raise ValueError(f"unknown order {order!r}{reason}")
    controls = SimpleNamespace(
        page=0,
        label=widgets.Dropdown(options=[("all", ALL), *((name, name) for name in labels)], description="Label"),
        split=widgets.Dropdown(options=[name for name in SPLITS if (rows.split == name).any()], description="Split"),
        order=widgets.Dropdown(description="Order"),
        previous=widgets.Button(description="Previous", layout=widgets.Layout(width="auto")),
        next=widgets.Button(description="Next", layout=widgets.Layout(width="auto")),
        status=widgets.Label(),
        sheet=widgets.HTML(),
    )
    controls.label.value = label or ALL
    _offer_orders(controls, rows, order)
    return controls


def _chosen(controls: SimpleNamespace, rows: pd.DataFrame) -> pd.DataFrame:
    return choose_rows(rows, controls.label.value or None, controls.split.value)


def _offer_orders(controls: SimpleNamespace, rows: pd.DataFrame, wanted: str) -> None:
    """Offers the orders that the chosen rows can be laid in, and takes the wanted one if it is among them."""
    offered = orders_of(_chosen(controls, rows))
    controls.order.options = [(ORDERS[name][0], name) for name in offered]
    controls.order.value = wanted if wanted in offered else offered[0]


def _draw(
    controls: SimpleNamespace, rows: pd.DataFrame, page_size: int, render: Callable[[pd.DataFrame], str], page: int
) -> None:
    """Draws a page of the chosen rows, the nearest one that there is."""
    chosen = order_rows(_chosen(controls, rows), controls.order.value)
    n_pages = max(1, -(-len(chosen) // page_size))
    controls.page = min(max(page, 0), n_pages - 1)
    controls.previous.disabled, controls.next.disabled = controls.page == 0, controls.page == n_pages - 1
    controls.sheet.value = render(chosen[controls.page * page_size :][:page_size])
    n_images, n_rows = chosen.image_id.nunique(), len(chosen)
    shown = f"{n_images} image{'' if n_images == 1 else 's'}"
    if n_rows > n_images:  # of several labels
        shown += f" in {n_rows} rows"
    controls.status.value = f"page {controls.page + 1} of {n_pages}, {shown}"


def _connect(controls: SimpleNamespace, rows: pd.DataFrame, draw: Callable[[int], None]) -> None:
    """Lets the controls draw; an error is shown, since what a callback raises is written where nobody looks."""
    busy = []

    def show(page: int) -> None:
        controls.status.value = WORKING
        try:
            draw(page)
        except Exception as error:
            controls.status.value = "This page could not be drawn."
            controls.sheet.value = render_error(f"{type(error).__name__}: {error}")

    def choose(_: Any) -> None:
        if busy:  # offering other orders changes the order
            return
        busy.append(True)
        _offer_orders(controls, rows, controls.order.value)
        busy.clear()
        show(0)

    for control in (controls.label, controls.split, controls.order):
        control.observe(choose, "value")
    controls.previous.on_click(lambda _: show(controls.page - 1))
    controls.next.on_click(lambda _: show(controls.page + 1))
