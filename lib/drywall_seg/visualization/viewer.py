"""The viewer: one HTML block or file in which a threshold is moved and masks are corrected without Python."""

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from IPython.display import HTML
from markupsafe import Markup, escape
from PIL import Image

from drywall_seg.data.corrections import FORMAT
from drywall_seg.inference.scores import first_level
from drywall_seg.visualization.html import plain, render, to_jpeg
from drywall_seg.visualization.views import BOTH, FOUND, MISSED, View, paint, pale, reduce_by, scores_at

SIDE = 1280
"""Longer side in pixels at which the viewer shows a photo; larger ones are shown at a half, a third and so on."""
STILL_SIDE = 320
COLORS = {"both": BOTH, "found": FOUND, "missed": MISSED}
EMPTY = "no photo was given."


def threshold_viewer(views: Iterable[View], side: int = SIDE) -> HTML:
    """Shows views in a viewer that needs no kernel and no network: threshold, truth, zoom, judgement, brush.

    Figures are of the raw masks at the photos' own size, from the score histograms, whatever the size shown. What a
    person judges or paints is saved as a download, for `drywall-seg import-corrections`. Where no script may run, a
    picture of the first view stands in its place. `side` is a photo's longest, in pixels.
    """
    entries, still = [], None
    for view in views:
        entries.append(encode_view(view, side))
        still = still or still_html(*draw_still(view))
    return HTML(viewer_block(entries, still))


def viewer_block(entries: Sequence[dict[str, Any]], still: str | None, strip: bool = False, empty: str = EMPTY) -> str:
    """Returns the viewer as an HTML block.

    Args:
        entries: As `encode_view` makes them.
        still: HTML that stands there where no script runs; None where there are no entries.
        strip: Show small pictures of all photos below.
        empty: What is said where there are no entries.
    """
    photos = {photo: number for number, photo in enumerate(dict.fromkeys(entry["photo"] for entry in entries))}
    views = [{**entry, "photo": photos[entry["photo"]]} for entry in entries]  # one photo is asked for several things
    text = to_json({"format": FORMAT, "colors": COLORS, "photos": list(photos), "views": views})
    assets = files("drywall_seg.visualization").joinpath("assets")
    css, viewer, review = (
        assets.joinpath(name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.js", "review.js")
    )
    start = (
        'for (const root of document.querySelectorAll(".dws-viewer:not([data-started])")) '
        '{ root.dataset.started = "1"; startViewer(root); }'
    )
    return render(
        "viewer",
        identity="dws-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        css=Markup(css),
        script=Markup(f'(() => {{\n"use strict";\n{viewer}{review}{start}\n}})();'),
        data=Markup(text),
        still=Markup(still) if still else None,
        colors=COLORS,
        strip=strip,
        empty=empty,
    )


def to_json(value: Any) -> str:
    """Returns JSON that may stand in a script element, which would end at the first `</script`."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def encode_view(view: View, side: int = SIDE, quality: int = 82) -> dict[str, Any]:
    """Returns a view as the viewer takes it, JSON: photo, levels and truth at a whole fraction of the photo's size."""
    factor = math.ceil(max(view.levels.shape) / side)
    levels = reduce_by(view.levels, factor)
    return {
        "name": plain(view.item.name),
        "prompt": plain(view.item.prompt),
        "note": plain(view.item.note),
        "label": view.label,
        "understood": view.understood,
        "sha256": view.sha256,
        "model": view.model,
        "own_size": list(view.levels.shape),
        "size": list(levels.shape),
        "factor": factor,
        "threshold": view.threshold,
        "level": min(255, first_level(view.threshold)),
        "presence": view.presence,
        "presence_cut": view.presence_cut,
        "histogram": view.histogram.tolist(),
        "photo": to_jpeg(Image.fromarray(view.image).reduce(factor), quality),
        "levels": _pack(np.diff(levels, axis=1, prepend=np.uint8(0))),
        "truth": None if view.target is None else _pack((reduce_by(view.target, factor) > 0).astype(np.uint8)),
    }


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def draw_still(view: View) -> tuple[Image.Image, str]:
    """Draws Original | Ground truth | Prediction of a view side by side, and says what it is in words."""
    factor = math.ceil(max(view.levels.shape) / STILL_SIDE)
    photo = Image.fromarray(view.image).reduce(factor)
    canvas = pale(photo)
    mask = reduce_by((view.levels >= first_level(view.threshold)).astype(np.uint8), factor)
    parts = [np.asarray(photo)]
    if view.target is not None:
        truth = reduce_by(view.target, factor)
        parts.append(paint(canvas, np.zeros_like(truth), truth))
    parts.append(paint(canvas, mask, None))
    gap = np.full((len(canvas), 6, 3), 255, np.uint8)
    row = [piece for part in parts for piece in (part, gap)][:-1]
    scores = scores_at(view, view.threshold)
    found = f"IoU {scores['iou']:.2f}" if scores["iou"] is not None else f"{scores['area']:.1%} of the photo"
    shown = "Original, ground truth (blue) and prediction (orange)" if len(parts) == 3 else "Original and prediction"
    words = f"{shown}: {plain(view.item.name)}, {plain(view.item.prompt)}, threshold {view.threshold:.2f}, {found}"
    return Image.fromarray(np.concatenate(row, axis=1)), words


def still_html(picture: Image.Image, words: str) -> str:
    """Returns a picture with its words below as HTML."""
    return f'<img src="{to_jpeg(picture)}" alt="{escape(words)}"><p class="dws-dim">{escape(words)}</p>'
