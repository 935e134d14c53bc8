"""The numbers of an inspected folder as a reader wants them: in words, with their units."""

import math
from typing import Any

import pandas as pd

from drywall_seg.inference.findings import PIXELS, TOO_SHORT, UNRESOLVED, rank_of, shown
from drywall_seg.inference.measure import RESOLVABLE
from drywall_seg.inference.site import Site


def thing_of(label: str) -> str:
    """Returns what a label's findings are called.

    >>> thing_of("joint_line")
    'joint line'
    """
    return label.replace("_", " ")


def number_text(value: float, digits: int = 0) -> str:
    r"""Writes a number with a space before each three digits, which no line breaks at.

    >>> number_text(12340.4), number_text(3.25, 1)
    ('12\xa0340', '3.2')
    """
    return f"{value:,.{digits}f}".replace(",", "\N{NO-BREAK SPACE}")


def length_text(value: float, unit: str) -> str:
    """Writes the length of a line.

    >>> length_text(3.26, "mm"), length_text(340, "mm"), length_text(12340, "mm"), length_text(float("nan"), "px")
    ('3.3 mm', '340 mm', '12.34 m', 'cannot be told')
    """
    if math.isnan(value):
        return "cannot be told"
    if unit == "mm" and value >= 1000:
        return f"{number_text(value / 1000, 2)} m"
    return f"{number_text(value, int(value < 10))} {unit}"


def width_text(row: dict[str, Any]) -> str:
    """Writes a finding's median width, or why there is none; a crack's class says it at length."""
    if math.isnan(row["width_median"]):
        return "too short"
    if not row["resolvable"]:
        return f"under {RESOLVABLE:.0f} px"
    fine = row["unit"] == "mm" and row["width_median"] < 1
    return f"{number_text(row['width_median'], 2 if fine else 1)} {row['unit']}"


def count_text(count: int, thing: str) -> str:
    """Writes how many there are.

    >>> count_text(1, "crack"), count_text(0, "crack")
    ('1 crack', '0 cracks')
    """
    return f"{number_text(count)} {thing}{'' if count == 1 else 's'}"


def sum_text(table: pd.DataFrame, column: str = "length") -> str:
    """Adds up lengths; those in millimetres and those in pixels stay apart."""
    sums = table.groupby("unit")[column].agg(lambda lengths: lengths.sum(skipna=False))
    return " and ".join(length_text(sums[unit], unit) for unit in ("mm", "px") if unit in sums) or "0 px"


def headline_of(site: Site) -> list[dict[str, str]]:
    """Returns a box for the photos, one for those to look at, and one for each sentence: name, value, note."""
    look = int((site.review.look & ~site.review.photo.isin(list(site.errors))).sum())
    broken = f"{len(site.errors)} more could not be read" if site.errors else "all could be read"
    boxes = [
        {"name": "Photos", "value": number_text(len(site.review) - len(site.errors)), "note": broken},
        {"name": "To look at", "value": number_text(look), "note": "photos; the reasons are below"},
    ]
    for prompt, table in site.photos[site.photos.error == ""].groupby("prompt", sort=False):
        label, n = table.label.iloc[0], int(table.n.sum())
        some = table[table.n > 0]
        on = f"on {count_text(len(some), 'photo')}"
        value, note = count_text(n, thing_of(label)), f"{sum_text(some)} long together, {on}"
        if label == "joint_line":
            value = sum_text(some)
            note = f"of joint to tape, in {count_text(int(table.n_runs.sum()), 'straight run')}, {on}"
        elif label != "crack":
            note = f"{table.area_share.mean():.1%} of the photos' area, {on}"
        boxes.append({"name": prompt, "value": value if n else "none", "note": note if n else ""})
    return boxes


def classes_of(findings: pd.DataFrame, limits: dict[str, float]) -> list[dict[str, Any]]:
    """Counts the cracks of each class, in a table for each sentence and unit.

    Returns:
        Tables with prompt, unit, and rows (name, limit, n, length), the widest class first.
    """
    tables = []
    for (prompt, unit), cracks in findings[findings.label == "crack"].groupby(["prompt", "unit"], sort=False):
        words = _limit_texts(limits) if unit == "mm" else dict.fromkeys(PIXELS, "")
        rows = []
        for name in [*reversed(words), UNRESOLVED, TOO_SHORT]:
            part = cracks[cracks.severity == name]
            length = sum_text(part, "total_length") if len(part) else ""
            rows.append({"name": name, "limit": words.get(name, ""), "n": len(part), "length": length})
        tables.append({"prompt": prompt, "unit": unit, "rows": rows})
    return tables


def _limit_texts(limits: dict[str, float]) -> dict[str, str]:
    above = [0.0, *limits.values()]
    texts = {
        name: f"{low:g} to {limit:g} mm" if low else f"up to {limit:g} mm"
        for low, (name, limit) in zip(above, limits.items(), strict=False)
    }
    return texts | {list(limits)[-1]: f"over {above[-2]:g} mm"}


def photo_words(photos: pd.DataFrame) -> list[str]:
    """Says of one photo what was found for each sentence, from its rows of `site.PHOTOS`."""
    said = []
    for row in photos[photos.n > 0].to_dict("records"):
        found, length = count_text(int(row["n"]), thing_of(row["label"])), length_text(row["length"], row["unit"])
        words = f"{found}, {length} long together"
        if row["label"] == "joint_line":
            words += f" in {count_text(int(row['n_runs']), 'straight run')}"
        elif row["label"] != "crack" and not math.isnan(row["area_share"]):
            words = f"{found}, {row['area_share']:.1%} of the photo"
        said.append(f"{row['prompt']}: {words}")
    return said


def findings_of(table: pd.DataFrame, limits: dict[str, float]) -> dict[str, Any]:
    """Returns the rows of a photo's `shown` findings, as texts and as the numbers to sort by, and how many are left."""
    rows = [
        {
            "number": row["number"],
            "thing": thing_of(row["label"]),
            "label": row["label"],
            "where": row["where"],
            "severity": row["severity"],
            "wider": row["severity_p95"] if row["severity_p95"] != row["severity"] else "",
            "rank": rank_of(row["severity"], limits),
            "length": length_text(row["total_length"], row["unit"]),
            "length_value": _comparable(row["total_length"], row["unit"]),
            "width": width_text(row),
            "width_value": _comparable(row["width_median"], row["unit"]) if row["resolvable"] else 0.0,
            "doubt": row["doubt"],
        }
        for row in shown(table).to_dict("records")
    ]
    return {"rows": rows, "smaller": len(table) - len(rows)}


def _comparable(value: float, unit: str) -> float:
    """Returns a number to sort by: what is known in millimetres stands above what is not, and they never mix."""
    return 0.0 if math.isnan(value) else value if unit == "mm" else value * 1e-6


def warnings_of(site: Site, scale: str) -> list[str]:
    """Says what a reader must know before the numbers; `scale` is one of `none`, `one`, `by photo`."""
    read = site.photos[site.photos.error == ""]
    warnings = []
    if site.errors:
        warnings.append(f"{count_text(len(site.errors), 'photo')} could not be read; see the end of this page.")
    if scale == "none":
        warnings.append("No scale was given: all sizes are in pixels of the photo, and say nothing of millimetres.")
    elif without := read[read.unit == "px"].photo.nunique():
        warnings.append(f"{count_text(without, 'photo')} had no scale: their sizes are in pixels.")
    if scale == "one" and len(read[["width_px", "height_px"]].drop_duplicates()) > 1:
        warnings.append("One scale was used for photos of different sizes: it cannot be right for all of them.")
    return warnings
