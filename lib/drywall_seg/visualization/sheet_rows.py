"""What a contact sheet can show: the rows of a run by label and split, in an order, from its tables alone."""

from pathlib import Path

import pandas as pd

from drywall_seg.config import resolve_path, run_folder_of
from drywall_seg.data.manifest import Manifest
from drywall_seg.runs import run_folder
from drywall_seg.settings import RunConfig

SPLITS = ("test", "val", "train")
ORDERS = {
    "worst": ("worst first", "iou", True),
    "best": ("best first", "iou", False),
    "doubt": ("most doubtful first", "doubt", False),
    "false_alarm": ("largest false alarm first", "false_alarm", False),
    "miss": ("largest miss first", "missed", False),
    "difference": ("largest difference of the runs first", "gap", False),
    "photograph": ("photograph copies together", "worst_copy", True),
    "name": ("by file name", "name", True),
}
"""In words, the column that it goes by, and whether that ascends."""
ALWAYS = ("photograph", "name")
"""Orders that need no score."""

KEYS = ["image_id", "label"]
SCORES = ["prompt", "mask_file", "threshold", "presence", "doubt", "tp", "fp", "fn", "iou", "dice"]
OTHERS = ["mask_file", "iou", "tp", "fn"]


def sheet_rows(config: RunConfig, manifest: Manifest, other_run: str | None = None) -> pd.DataFrame:
    """Joins a run's scores, and another's by its name, to all rows of the manifest; opens no photo and no mask.

    Returns:
        The manifest's columns and `SCORES`, NaN where a row was not evaluated (`doubt` is NaN for all of an older
        run); name (of the file), false_alarm and missed (fp and fn as shares of the photo), copy_number and copies
        (which file of how many there are of this photograph and label) and stale (the truth is not the one that was
        scored). With another run also its mask and scores, as `other_mask_file` and so on, difference (of the IoU,
        this run's less the other's; NaN unless both scored the same truth) and gap, its size.

    Raises:
        FileNotFoundError: If a run was not evaluated.
        ValueError: If the run was evaluated on other data, or the other run has no scored image in common with it.
    """
    folder = run_folder_of(config)
    scores = _read_scores(folder)
    rows = manifest.table.merge(scores, how="left", on=KEYS, validate="one_to_one")
    if rows.iou.notna().sum() < len(scores):
        known = set(zip(manifest.table.image_id, manifest.table.label, strict=True))
        image_id, label = next(key for key in zip(scores.image_id, scores.label, strict=True) if key not in known)
        raise ValueError(f"{folder / 'per_image.csv'}: {image_id}, {label} is not in {manifest.folder}")
    size = rows.width * rows.height
    copies = rows.sort_values("image_id").groupby(["label", "photo_id"]).image_id
    rows = rows.assign(
        name=rows.image_id.str.rpartition("/")[2],
        false_alarm=rows.fp / size,
        missed=rows.fn / size,
        copy_number=copies.cumcount() + 1,
        copies=copies.transform("size"),
        stale=rows.iou.notna() & (rows.tp + rows.fn != rows.mask_area),
    )
    return rows if other_run is None else _add_other(rows, config, other_run)


def _read_scores(folder: Path) -> pd.DataFrame:
    """Reads `KEYS` and `SCORES` of an evaluated run's rows."""
    file = folder / "per_image.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not there; run 03_evaluate with run_name {folder.name!r} first")
    wanted = [*KEYS, *SCORES]
    texts = dict.fromkeys((*KEYS, "prompt", "mask_file"), str)
    return pd.read_csv(file, usecols=wanted.__contains__, dtype=texts).reindex(columns=wanted)


def _add_other(rows: pd.DataFrame, config: RunConfig, other_run: str) -> pd.DataFrame:
    folder = run_folder(resolve_path(config.outputs_root), other_run)
    theirs = _read_scores(folder)[[*KEYS, *OTHERS]].rename(columns={name: f"other_{name}" for name in OTHERS})
    rows = rows.merge(theirs, how="left", on=KEYS, validate="one_to_one")
    both = rows.iou.notna() & rows.other_iou.notna()
    if not both.any():
        file = folder / "per_image.csv"
        raise ValueError(f"{file}: no image in common with run {config.run_name!r}; were both scored on the same data?")
    same = both & (rows.tp + rows.fn == rows.other_tp + rows.other_fn)
    difference = (rows.iou - rows.other_iou).where(same)
    return rows.assign(difference=difference, gap=difference.abs())


def choose_rows(rows: pd.DataFrame, label: str | None, split: str) -> pd.DataFrame:
    """Returns the `sheet_rows` of a label, None for all, and a split."""
    chosen = rows.split == split
    return rows[chosen if label is None else chosen & (rows.label == label)]


def orders_of(rows: pd.DataFrame) -> list[str]:
    """Returns the names of the `ORDERS` that rows can be laid in: those by a score need one that has it."""
    scored = {column for column in rows.columns if rows[column].notna().any()}
    return [name for name, (_, column, _) in ORDERS.items() if name in ALWAYS or column in scored]


def order_rows(rows: pd.DataFrame, order: str) -> pd.DataFrame:
    """Lays `sheet_rows` in one of the `ORDERS`; what has not the score comes last, and equals go by name.

    Copies of one photograph stand together by the lowest IoU that the photograph has among these rows.
    """
    _, column, ascending = ORDERS[order]
    if order == "photograph":
        rows = rows.assign(worst_copy=rows.groupby("photo_id").iou.transform("min"))
    by = [column, *(["photo_id"] if order == "photograph" else []), "name", *KEYS]
    return rows.sort_values(by, ascending=[ascending, *[True] * (len(by) - 1)], na_position="last", ignore_index=True)
