"""Which image goes to train, val or test, and how many would leak."""

import hashlib
import random
from collections.abc import Set

import pandas as pd

from drywall_seg.prompts import LABELS
from drywall_seg.settings import SPLITS

SHARES = (0.70, 0.15)  # of train and val; the rest is test
PUBLISHER_PARTS = {"train": "train", "valid": "val", "test": "test"}


def split_ids(ids: list[str], seed: int) -> dict[str, str]:
    """Splits ids 70/15/15: sorted, shuffled by the seed, cut at int(.7 n) and int(.15 n) more.

    >>> list(split_ids(list("abcdefghij"), seed=42).values()).count("train")
    7
    """
    order = sorted(set(ids))
    random.Random(seed).shuffle(order)
    n_train, n_val = (int(share * len(order)) for share in SHARES)
    names = ["train"] * n_train + ["val"] * n_val + ["test"] * (len(order) - n_train - n_val)
    return dict(zip(order, names, strict=True))


def assign_splits(table: pd.DataFrame, split: str, seed: int) -> pd.Series:
    """Returns train, val or test for every row of a manifest; all rows of an image get the same.

    `photo` splits photographs, `image` images as the reference report did (unannotated ones go to train),
    `publisher` keeps the export's parts. The first two do it within each label, where an image's or a photograph's
    label is that of its first row, which is its export's: a label that an overlay adds behind moves nothing.

    Raises:
        ValueError: If the split is unknown.
    """
    if split == "publisher":
        return table.image_id.str.split("/").str[-2].map(PUBLISHER_PARTS)
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, not one of {', '.join(SPLITS)}")
    unit = "photo_id" if split == "photo" else "image_id"
    first = table.drop_duplicates(unit)
    if split == "image":
        first = first[first.annotation_kind != "none"]
    assigned: dict[str, str] = {}
    for _, group in first.groupby("label"):
        assigned |= split_ids(list(group[unit]), seed)
    return table[unit].map(assigned).fillna("train")


def photo_hash(photo_id: str) -> str:
    """Returns what stands for a photograph in shipped weights, which name no one's files."""
    return hashlib.sha256(f"drywall-seg {photo_id}".encode()).hexdigest()[:16]


def known_photographs(table: pd.DataFrame, trained_on: Set[str]) -> pd.Series:
    """Returns for each row whether its photograph is one of those with these hashes."""
    return table.photo_id.map({name: photo_hash(name) in trained_on for name in table.photo_id.unique()}).astype(bool)


def leak_report(table: pd.DataFrame, trained_on: Set[str] = frozenset()) -> pd.DataFrame:
    """Counts, per label and split, the images whose photograph is also in train, or behind a model's weights.

    Args:
        table: A manifest's rows with the columns label, split, photo_id and image_id.
        trained_on: Hashes of the photographs that a model was trained on.

    Returns:
        One row per label and split (val, test) that occurs: n_images, n_photographs, n_leaked, share_leaked.
    """
    trained = set(table.photo_id[(table.split == "train") | known_photographs(table, trained_on)])
    held_out = table[table.split != "train"].assign(leaked=lambda rows: rows.photo_id.isin(trained))
    report = held_out.groupby(["label", "split"], sort=False).agg(
        n_images=("image_id", "nunique"), n_photographs=("photo_id", "nunique"), n_leaked=("leaked", "sum")
    )
    report["share_leaked"] = report.n_leaked / report.n_images
    order = sorted(report.index, key=lambda key: (LABELS.index(key[0]), key[1] == "test"))
    return report.loc[order].reset_index()


def compare_splits(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Returns the leak reports of all three splits of the same images, one under the other."""
    reports = []
    for split in SPLITS:
        report = leak_report(table.assign(split=assign_splits(table, split, seed)))
        reports.append(report.assign(split=split + " / " + report.split))
    return pd.concat(reports, ignore_index=True)
