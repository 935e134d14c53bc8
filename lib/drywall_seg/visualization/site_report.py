"""The report of an inspected folder: one HTML file for a phone and for paper, and the tables beside it."""

import base64
import json
import math
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.inference.files import Wanted, settings_hash
from drywall_seg.inference.inspected import FOLDER, Inspected
from drywall_seg.inference.measure import BRE_251, Scale
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.review import LOOK
from drywall_seg.inference.site import Site, find_site_photos, inspect_folder, write_tables
from drywall_seg.runs import single_writer, whole_file
from drywall_seg.visualization.html import render
from drywall_seg.visualization.marks import OWN_STYLE, STYLES, draw_findings
from drywall_seg.visualization.site_words import (
    classes_of,
    findings_of,
    headline_of,
    photo_words,
    thing_of,
    warnings_of,
)

BUDGET = 16_000_000
"""Characters that all pictures of a page may take together; its text takes up to 4 million more."""
SIDES = 320, 1200
"""Shortest and longest side of a picture, in pixels."""
JPEG_BYTES = 0.2
"""Of a picture, for each of its pixels; photos of walls take 0.05 to 0.36."""
FIRST, ROWS, SECTIONS, NAMES = 12, 1000, 1000, 2000
"""How many photos to look at first, findings in the table, photos with findings, and photos without the page has."""


def inspect_site(
    predictor: Predictor,
    folder: Path,
    out: Path,
    prompts: list[str],
    scales: Scale | dict[str, Scale] | None = None,
    limits: dict[str, float] = BRE_251,
    flips: bool = True,
    budget: int = BUDGET,
) -> Site:
    """Inspects a folder's photos and writes `report.html` and the tables of `write_tables` into `out`.

    What is known of each photo is kept there until the end, so that the same call goes on where one was stopped.

    Args:
        predictor: The model.
        folder: Of the photos.
        out: For the report.
        prompts: The sentences.
        scales: As for `inspect_folder`.
        limits: As for `inspect_photo`.
        flips: Likewise.
        budget: Characters that the page's pictures may take.

    Raises:
        ValueError: As from `inspect_folder`, or if another process is writing there.
    """
    side = picture_side(len(find_site_photos(folder, scales)), budget)  # refuses before anything is written
    scale = "none" if scales is None else "by photo" if isinstance(scales, dict) else "one"
    settings = [settings_hash(predictor, Wanted(tuple(prompts))), prompts, limits, flips, side]
    with single_writer(out):
        inspected = Inspected(out / FOLDER, json.dumps(settings))

        def draw(number: int, photo: np.ndarray, findings: pd.DataFrame, masks: dict[str, np.ndarray]) -> None:
            picture = draw_findings(photo, findings, masks, side)
            with whole_file(inspected.picture(number)) as path:
                picture.save(path, quality=80 if side > 600 else 70, optimize=True)

        site = inspect_folder(predictor, folder, prompts, scales, limits, flips, draw, inspected)
        asked = {p: {"label": predictor.label_for(p), "threshold": predictor.threshold_for(p)} for p in prompts}
        made = {
            "model": predictor.backend.model_hash,
            "chosen": predictor.chosen,
            "presence_cut": predictor.presence_cut,
            "prompts": asked,
            "scale": scale,
            "limits": limits,
            "flips": flips,
        }
        write_tables(site, out)
        with whole_file(out / "report.html") as page:
            page.write_text(site_page(site, made, inspected, budget), encoding="utf-8")
        shutil.rmtree(inspected.folder, ignore_errors=True)
    return site


def picture_side(count: int, budget: int = BUDGET) -> int:
    """Returns the longer side at which so many pictures fit the budget, within `SIDES`.

    >>> picture_side(20), picture_side(400), picture_side(5000)
    (1200, 447, 320)
    """
    pixels = budget * 3 / 4 / count / JPEG_BYTES  # base64 makes 4 characters of 3 bytes
    return int(np.clip(math.sqrt(pixels / 0.75), *SIDES))  # 4 : 3


def site_page(site: Site, made: dict[str, Any], inspected: Inspected, budget: int) -> str:
    """Returns the report as HTML; `made` is what it depends on besides the photos, as the template names it.

    The pictures of `inspected` may take so many characters; those of photos with findings come first, by review.
    """
    numbers = {name: number for number, name in enumerate(site.photos.photo.unique(), 1)}
    review = [{**row, "number": numbers[row["photo"]]} for row in site.review.to_dict("records")]
    readable = [row for row in review if row["photo"] not in site.errors]
    full = [row for row in readable if row["n"] or row["look"]]
    clean = [row for row in readable if not (row["n"] or row["look"])]
    embedded = _embed(inspected, [row["number"] for row in [*full[:SECTIONS], *clean[:NAMES]]], budget)
    by_photo = dict(iter(site.findings.groupby("photo", sort=False)))
    totals = dict(iter(site.photos.groupby("photo", sort=False)))
    sections = [
        {
            **row,
            "image": embedded.get(row["number"]),
            "words": photo_words(totals[row["photo"]]),
            **findings_of(by_photo.get(row["photo"], site.findings[:0]), made["limits"]),
        }
        for row in full[:SECTIONS]
    ]
    rows = [
        {**finding, "photo": section["photo"], "photo_number": section["number"], "review": section["review"]}
        for section in sections
        for finding in section["rows"]
    ]
    return render(
        "site_report",
        folder=site.folder.absolute().name.encode("utf-8", "backslashreplace").decode(),
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        made=made,
        legend=[
            (thing_of(label), color, " ".join(map(str, dashes)))
            for label in dict.fromkeys([*STYLES, *site.photos.label.dropna()])
            for color, dashes in [STYLES.get(label, OWN_STYLE)]
        ],
        look_from=LOOK,
        standard=made["limits"] == BRE_251,
        warnings=warnings_of(site, made["scale"]),
        headline=headline_of(site),
        classes=classes_of(site.findings, made["limits"]),
        first=[row for row in review if row["look"]][:FIRST],
        n_look=sum(row["look"] for row in review),
        rows=rows[:ROWS],
        n_findings=len(site.findings),
        sections=sections,
        n_full=len(full),
        n_clean=len(clean),
        clean=[{**row, "image": embedded.get(row["number"])} for row in clean[:NAMES]],
        errors=list(site.errors.items()),
        n_without_picture=len(readable) - len(embedded),
    )


def _embed(inspected: Inspected, numbers: Iterable[int], budget: int) -> dict[int, str]:
    """Returns pictures as data URLs, in this order, as long as they fit."""
    embedded, used = {}, 0
    for number in numbers:
        text = base64.b64encode(inspected.picture(number).read_bytes()).decode()
        used += len(text)
        if used > budget:
            break
        embedded[number] = f"data:image/jpeg;base64,{text}"
    return embedded
