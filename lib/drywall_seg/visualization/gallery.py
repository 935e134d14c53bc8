"""A gallery of a run: one HTML file of chosen images for somebody without Python, within a budget of bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from drywall_seg.config import run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.evaluation.evaluate import run_predictor
from drywall_seg.inference.predict import Predictor
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import progress, whole_file
from drywall_seg.settings import RunConfig
from drywall_seg.visualization.html import plain, render
from drywall_seg.visualization.sheet_rows import ORDERS, choose_rows, order_rows, orders_of, sheet_rows
from drywall_seg.visualization.viewer import draw_still, encode_view, still_html, to_json, viewer_block
from drywall_seg.visualization.views import Item, look

BUDGET = 10_000_000
"""Bytes of the file."""
SIDES = (1280, 960, 640, 480, 320, 240)
"""Longest sides in pixels, of which the largest is taken at which all images are likely to fit."""
TRIED = 12
"""Images by which the size of all is told."""
OWN = 60_000
"""Bytes that the page takes without any image."""


def write_gallery(
    config: RunConfig,
    manifest: Manifest,
    out: Path | None = None,
    order: str | None = None,
    label: str | None = None,
    split: str = "test",
    limit: int = 200,
    budget: int = BUDGET,
) -> tuple[Path, str]:
    """Writes a run's images, predicted anew, into one HTML file with the viewer.

    Images are chosen in the order, as many as the limit; then they are scaled down until they fit the budget, and
    where they do not at the smallest size, the last ones are left out. The page says what it left out.

    Args:
        config: The run.
        manifest: The data that it was evaluated on.
        out: The file; None for `gallery.html` in the run's folder, or `gallery-val.html`.
        order: One of `sheet_rows.ORDERS` that the run's scores allow; None for worst first, by name without scores.
        label: None for all.
        split: Of the images.
        limit: At most so many images.
        budget: Bytes that the file may take.

    Returns:
        The file and what it holds, in a sentence.

    Raises:
        FileNotFoundError: If the run was not evaluated.
        ValueError: If the order or label is unknown, or not a single image fits.
    """
    if label not in (None, *LABELS):
        raise ValueError(f"label is {label!r}, not one of {', '.join(LABELS)}")
    rows = choose_rows(sheet_rows(config, manifest), label, split)
    known = orders_of(rows)
    order = order or ("worst" if "worst" in known else "name")
    if order not in known:
        raise ValueError(f"order is {order!r}, not one of {', '.join(known)}, which the {split} images have scores for")
    rows = order_rows(rows, order)
    items = [_item_of(row, manifest) for row in rows.head(limit).itertuples(index=False)]
    entries, still = fit_entries(items, run_predictor(config), budget)
    said = describe(entries, len(items), len(rows), budget, ORDERS[order][0])
    block = viewer_block(entries, still, strip=True, empty=f"the {split} part has no image of {label or 'any label'}.")
    title, line = f"{plain(config.run_name)}: masks by threshold", f"{label or 'All labels'}, {split} part. {said}"
    out = out or run_folder_of(config) / ("gallery.html" if split == "test" else f"gallery-{split}.html")
    with whole_file(out) as partial:
        page = render("gallery", title=title, lines=[line], block=Markup(block))
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    return out, said


def _item_of(row: Any, manifest: Manifest) -> Item:
    notes = [] if pd.isna(row.iou) else [f"IoU {row.iou:.2f}"]
    notes += [f"copy {row.copy_number} of {row.copies}"] if row.copies > 1 else []
    prompt = canonical_prompt(row.label)
    return Item(row.name, manifest.image_file(row), prompt, manifest.mask_file(row), ", ".join(notes))


def fit_entries(items: list[Item], predictor: Predictor, budget: int) -> tuple[list[dict[str, Any]], str | None]:
    """Encodes items in their order at the largest of `SIDES` at which all fit a budget, as far as they do.

    Returns:
        The entries, and what stands there where no script runs.

    Raises:
        ValueError: If not even the first fits.
    """
    if not items:
        return [], None
    places = sorted({round(place) for place in np.linspace(0, len(items) - 1, TRIED)})
    tried = [look(predictor, items[place]) for place in places]
    still = still_html(*draw_still(tried[0]))
    entries, used = [], OWN + len(still)
    most = 0.95 * (budget - used) / len(items)  # a little less: it is told by a few of them
    means = ((side, np.mean([entry_bytes(encode_view(view, side)) for view in tried])) for side in SIDES)
    side = next((side for side, mean in means if mean <= most), SIDES[-1])
    for item in progress(items, "gallery", "image"):
        entry = encode_view(look(predictor, item), side)
        used += entry_bytes(entry)
        if used > budget:
            break
        entries.append(entry)
    if not entries:
        raise ValueError(f"budget is {budget} bytes, which is too little for one image")
    return entries, still


def entry_bytes(entry: dict[str, Any]) -> int:
    """Returns how many bytes of the page an entry takes."""
    return len(to_json(entry).encode("utf-8", "surrogatepass")) + 2


def describe(entries: list[dict[str, Any]], chosen: int, there: int, budget: int, order: str) -> str:
    """Says what a gallery holds and what it left out, of the images chosen for it and of all that are there.

    >>> describe([{"factor": 1}], 1, 1, 10_000_000, "worst first")
    '1 of 1 images, worst first.'
    >>> describe([{"factor": 2}], 2, 9, 10_000_000, "worst first")
    '1 of 9 images, worst first. Left out: 7 over the limit of 2, 1 that did not fit 10 MB. Shown at 1/2 of their size.'
    """
    left = [f"{there - chosen} over the limit of {chosen}"] if there > chosen else []
    left += [f"{chosen - len(entries)} that did not fit {budget / 1e6:g} MB"] if chosen > len(entries) else []
    factors = sorted({entry["factor"] for entry in entries} - {1})
    words = [f"{len(entries)} of {there} images, {order}."]
    words += [f"Left out: {', '.join(left)}."] if left else []
    words += [f"Shown at {' and '.join(f'1/{factor}' for factor in factors)} of their size."] if factors else []
    return " ".join(words)
