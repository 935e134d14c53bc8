"""HTML files that need nothing else: tables, pictures and a page's text in one string."""

import base64
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

# Control characters, halves of characters, line ends, and marks that turn the text after them round.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def render(template: str, **values: Any) -> str:
    """Fills in `assets/<template>.html`; what is filled in is escaped."""
    text = files("drywall_seg.visualization").joinpath(f"assets/{template}.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text).render(**values)


def plain(text: str) -> str:
    r"""Writes out what would not show in a name or a sentence, or would show it as another.

    >>> plain("wall\u202egpj.exe"), plain("a\tb"), plain("Wände 3.jpg")
    ('wall\\u202egpj.exe', 'a\\u0009b', 'Wände 3.jpg')
    """
    return HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def section(
    title: str,
    text: str = "",
    tables: Sequence[dict[str, list]] = (),
    charts: Sequence[dict[str, str]] = (),
    code: str = "",
) -> dict[str, Any]:
    """Returns a section of a page for the template."""
    return {"title": title, "text": text, "tables": tables, "charts": charts, "code": code}


def picture(figure: Figure, alt: str, kind: str = "svg+xml") -> dict[str, str]:
    """Returns a figure as a data URL with the words that stand for it; `kind` is svg+xml or jpeg."""
    buffer, form = io.BytesIO(), kind.partition("+")[0]
    with matplotlib.rc_context({"svg.hashsalt": "drywall-seg"}):  # the same figure gives the same bytes
        figure.savefig(buffer, format=form, dpi=100, metadata={"Date": None} if form == "svg" else None)
    return {"data": f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", "alt": alt}


def to_jpeg(picture: Image.Image, quality: int = 82, subsampling: int = 2) -> str:
    """Returns a picture as a data URL; with subsampling 0 colours keep their size, so that a hairline stays sharp."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=subsampling)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def table_of(table: pd.DataFrame, few: pd.Series | None = None) -> dict[str, list]:
    """Lays a table out for the template: names in words, numbers to three places and to the right, long texts broken.

    Columns without any value are left out; rows of `few` are greyed, none by default.
    """
    kept = table.loc[:, table.notna().any() | (table.columns == "value")]
    numbers = [pd.api.types.is_numeric_dtype(kept[name]) for name in kept.columns]
    names = [str(name).replace("_", " ") for name in kept.columns]
    kinds = [
        "number" if number else "long" if max(map(len, map(text_of, kept[name])), default=0) > 30 else "text"
        for name, number in zip(kept.columns, numbers, strict=True)
    ]
    marked = few.tolist() if few is not None else [False] * len(kept)
    return {
        "columns": [{"name": name, "number": number} for name, number in zip(names, numbers, strict=True)],
        "rows": [
            {"few": mark, "cells": [{"text": text_of(v), "kind": k} for v, k in zip(values, kinds, strict=True)]}
            for mark, values in zip(marked, kept.itertuples(index=False), strict=True)
        ],
    }


def text_of(value: Any) -> str:
    """Writes a value as a reader wants it: nothing for none, whole numbers whole, others to three places.

    >>> text_of(None), text_of(7.0), text_of(0.12345), text_of(2e-5), text_of("crack")
    ('', '7', '0.123', '2.0e-05', 'crack')
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value.is_integer():
        return str(int(value))
    return f"{value:.3f}" if abs(value) >= 0.0005 else f"{value:.1e}"
