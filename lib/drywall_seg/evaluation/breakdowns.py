"""Scores by what an image is: where its mean hides that a kind of photo, or of truth, does far worse."""

import re

import pandas as pd

FEW_PHOTOGRAPHS = 10
"""Below this a breakdown says little, and is greyed."""

FAMILIES = {  # by a photograph's name, as the exports have them
    r"\d+-dat_png": "range images",
    r"IMG_\d{8}_": "building site",
    r"IMG_\d{4}_|\d+x\d+_\d+_resized": "lab board",
    r"\w*cracking\d": "cracking*",
    r"crack\d": "crack*",
    r"[ab]_\d+_\d+_png": "a_*, b_*",
    r"images?\d|Image_": "image*",
    r"photo_\d": "photo_*",
    r"\d+(-Copy)?_(jpg|png)": "numbered",
}
SIZES = {0.0: "none", 0.01: "under 1 %", 0.03: "1 to 3 %", 0.1: "3 to 10 %", 1.0: "over 10 %"}
"""Upper limits of the target's share of the photo, inclusive."""


def capture_family(photo_id: str) -> str:
    """Returns the family of photographs that a name's pattern tells, or `others`.

    >>> capture_family("1009-dat_png_jpg"), capture_family("IMG_20220627_110122-jpg"), capture_family("old-stone")
    ('range images', 'building site', 'others')
    """
    return next((name for pattern, name in FAMILIES.items() if re.match(pattern, photo_id)), "others")


def target_size(share: float) -> str:
    """Returns the class of a target by its share of the photo, in [0, 1]."""
    return next(name for limit, name in SIZES.items() if share <= limit)


def break_down(per_image: pd.DataFrame) -> pd.DataFrame:
    """Scores each label by source, annotation kind, capture family and size of the target.

    Args:
        per_image: Columns label, source, annotation_kind, photo_id, tp, fn, width, height, iou, dice.

    Returns:
        One row for each value: label, by, value, n_images, n_photographs, mean_iou, mean_dice, few_photographs
        (whether it is under `FEW_PHOTOGRAPHS`). No rows for an empty table.
    """
    shares = (per_image.tp + per_image.fn) / (per_image.width * per_image.height)
    by = {
        "source": per_image.source,
        "annotation kind": per_image.annotation_kind,
        "capture family": per_image.photo_id.map(capture_family),
        "size of the target": shares.map(target_size),
    }
    rows = pd.concat([per_image.assign(by=name, value=values) for name, values in by.items()])
    groups = rows.groupby(["label", "by", "value"], sort=False)
    table = groups.agg(
        n_images=("iou", "size"),
        n_photographs=("photo_id", "nunique"),
        mean_iou=("iou", "mean"),
        mean_dice=("dice", "mean"),
    ).reset_index()
    table["few_photographs"] = table.n_photographs < FEW_PHOTOGRAPHS
    rank = {name: number for number, name in enumerate(SIZES.values())}
    table["rank"] = table.value.map(rank)  # NaN, which comes last, for what is no size
    ascending = [True, True, True, False]
    table = table.sort_values(["label", "by", "rank", "n_images"], ascending=ascending, ignore_index=True)
    return table.drop(columns="rank")
