"""A folder of photos: inspected one by one, added up, and ordered by what a person should look at first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.images import ImageError, list_images, read_image
from drywall_seg.inference.findings import FINDINGS, inspect_photo
from drywall_seg.inference.inspected import Inspected
from drywall_seg.inference.measure import BRE_251, Scale
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.review import LOOK, reasons
from drywall_seg.prompts import slugs
from drywall_seg.runs import one_ahead, progress, write_csv

Draw = Callable[[int, np.ndarray, pd.DataFrame, dict[str, np.ndarray]], None]
"""Keeps a picture of a photo: its number, its pixels, its findings, and its masks by sentence."""

PHOTOS = (
    "photo prompt label n n_runs unit length area area_share density severity widest unmeasurable presence threshold "
    "doubt disagreement review width_px height_px error"
).split()


@dataclass(frozen=True)
class Site:
    """What was found in a folder. Photos are numbered from 1, in the order of their names."""

    folder: Path
    photos: pd.DataFrame
    """A row for each photo and sentence, with `PHOTOS`, by number; of a photo that cannot be read one, with `error`."""
    findings: pd.DataFrame
    """A row for each finding, with `photo` and `findings.FINDINGS`, by number of the photo."""
    review: pd.DataFrame
    """A row for each photo, with photo, review, look, n and reason: what to look at first comes first."""

    @property
    def errors(self) -> dict[str, str]:
        """What was wrong, by photo."""
        broken = self.photos[self.photos.error != ""]
        return dict(zip(broken.photo, broken.error, strict=True))


def find_site_photos(folder: Path, scales: Scale | dict[str, Scale] | None = None) -> dict[str, Path]:
    """Returns the photos below a folder by name, sorted: the path from the folder on, as text that can be written.

    A photo that is named itself is one alone.

    Raises:
        ValueError: If there is no such folder or it holds no photo, or a scale is given for one that is not there.
    """
    if folder.is_file():
        return {_writable(folder.name): folder}
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    paths = {_writable(path.relative_to(folder).as_posix()): path for path in list_images(folder)}
    if not paths:
        raise ValueError(f"no photo in {folder}")
    unknown = [name for name in scales if name not in paths] if isinstance(scales, dict) else []
    if unknown:
        raise ValueError(f"a scale is given for {unknown[0]!r}, which is no photo in {folder}")
    return paths


def _writable(text: str) -> str:
    """Returns a text that can be encoded: a file's name may be in another encoding than UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def inspect_folder(
    predictor: Predictor,
    folder: Path,
    prompts: list[str],
    scales: Scale | dict[str, Scale] | None = None,
    limits: dict[str, float] = BRE_251,
    flips: bool = True,
    draw: Draw | None = None,
    inspected: Inspected | None = None,
) -> Site:
    """Inspects all photos below a folder as `inspect_photo` does; one that cannot be read is named, the others go on.

    There is one scale for all photos, if they were taken from the same place, or some by name; the others are measured
    in pixels. `draw` is called for each photo while it is in memory. What is `inspected` already is neither read nor
    drawn again, and the others are added to it.

    Raises:
        ValueError: As from `find_site_photos`, or if two sentences are one.
    """
    slugs(prompts)
    paths = find_site_photos(folder, scales)
    photos: list[dict[str, Any]] = []
    findings: list[pd.DataFrame] = []
    by_name = scales if isinstance(scales, dict) else dict.fromkeys(paths, scales)

    def look(numbered: tuple[int, str]) -> tuple[str, Any]:
        """Returns a photo's key, and what is known of it already, else its pixels, else what is wrong with it."""
        number, name = numbered
        try:
            key = inspected.key(name, paths[name], by_name.get(name)) if inspected else ""
            return key, (inspected and inspected.get(number, key)) or read_image(paths[name])
        except (ImageError, OSError) as error:
            return "", error

    ahead = one_ahead(look, enumerate(paths, 1))
    for (number, name), (key, seen) in progress(ahead, "inspecting", "photo", len(paths)):
        if isinstance(seen, Exception):
            photos.append({"photo": name, "error": _writable(str(seen))})
            continue
        if isinstance(seen, tuple):
            table, totals = seen
        else:
            table, totals, masks = inspect_photo(predictor, seen, prompts, by_name.get(name), limits, flips)
            if draw:
                draw(number, seen, table, masks)
            if inspected:
                inspected.add(number, key, table, totals)
        photos += [{"photo": name, "prompt": prompt, "error": "", **row} for prompt, row in totals.items()]
        if len(table):
            findings.append(table.assign(photo=name))
    found = pd.concat(findings, ignore_index=True) if findings else pd.DataFrame(columns=["photo", *FINDINGS])
    table = pd.DataFrame(photos, columns=PHOTOS)
    return Site(folder, table, found[["photo", *FINDINGS]], order_review(table))


def order_review(photos: pd.DataFrame) -> pd.DataFrame:
    """Orders photos, rows with `PHOTOS`, by what to look at first: those that cannot be read, then by review score.

    Returns:
        Rows with photo, review (the largest of the sentences; NaN of a photo that cannot be read), look, n, reason.
    """
    rows = []
    for name, group in photos.groupby("photo", sort=False):
        records = group.to_dict("records")
        if records[0]["error"]:
            said, review = ["cannot be read"], np.nan
        else:
            said = [words for row in records for words in reasons(row["prompt"], row)]
            review = max(row["review"] for row in records)
        n = int(group.n.sum())
        said = said or ["nothing stands out" if n else "nothing found"]
        look = not review < LOOK  # so that it is true of NaN
        rows.append({"photo": name, "review": review, "look": look, "n": n, "reason": "; ".join(said)})
    table = pd.DataFrame(rows, columns=["photo", "review", "look", "n", "reason"])
    return table.sort_values(["review", "n"], ascending=False, na_position="first", ignore_index=True)


def write_tables(site: Site, out: Path) -> None:
    """Writes `findings.csv`, `photos.csv` and `review.csv`, each whole or not at all, numbers to four places."""
    findings = site.findings.assign(runs=[" ".join(f"{run:.1f}" for run in runs) for runs in site.findings.runs])
    for name, table in (("findings", findings), ("photos", site.photos), ("review", site.review)):
        write_csv(out / f"{name}.csv", table.round(4))
