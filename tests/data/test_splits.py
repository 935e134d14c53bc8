import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drywall_seg.data.splits import assign_splits, compare_splits, leak_report, split_ids

COLUMNS = ["image_id", "photo_id", "label", "annotation_kind"]


def table_of(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def rows_of(source, label, n_annotated, n_photographs, n_unannotated=0):
    """Rows of an export in which each photograph has several copies, in no order of their ids."""
    rows = [
        (f"{source}/train/{i * 7919 % 100_003}.jpg", f"{source}{i % n_photographs}", label, "polygon")
        for i in range(n_annotated)
    ]
    return rows + [(f"{source}/train/u{i}.jpg", f"{source}u{i}", label, "none") for i in range(n_unannotated)]


# --- By photograph

tables = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["crack", "taping_area", "joint_line"]), st.booleans()),
    min_size=1,
    max_size=40,
).map(
    lambda rows: table_of(
        *(
            (f"e/train/{i}.jpg", f"p{photo}", label, ["none", "box"][kind])
            for i, (photo, label, kind) in enumerate(rows)
        )
    )
)


@given(tables, st.integers(0, 2**32), st.booleans())
def test_no_photograph_is_in_two_splits(table, seed, with_overlay):
    if with_overlay:
        table = pd.concat([table, table[::2].assign(label="joint_line")], ignore_index=True)
    split = assign_splits(table, "photo", seed)
    assert len(split) == len(table) and set(split) <= {"train", "val", "test"}
    assert (split.groupby(table.photo_id).nunique() == 1).all()


def test_photographs_are_shared_out_70_15_15_within_each_label():
    table = table_of(*rows_of("c", "crack", 1500, 200, 3), *rows_of("t", "taping_area", 300, 40))
    photographs = table.assign(split=assign_splits(table, "photo", 42)).drop_duplicates("photo_id")
    counts = photographs.groupby(["label", "split"]).size()
    assert counts["crack"].to_dict() == {"train": int(0.7 * 203), "val": int(0.15 * 203), "test": 203 - 142 - 30}
    assert counts["taping_area"].to_dict() == {"train": 28, "val": 6, "test": 6}


@pytest.mark.parametrize("split", ["photo", "image"])
def test_a_seed_gives_the_same_whatever_the_order_and_another_gives_another(split):
    table = table_of(*rows_of("c", "crack", 100, 50, 9), *rows_of("t", "taping_area", 60, 30))
    first = assign_splits(table, split, 42)
    assert first.equals(assign_splits(table.sample(frac=1, random_state=3), split, 42).sort_index())
    assert not first.equals(assign_splits(table, split, 43))


@pytest.mark.parametrize("split", ["photo", "image"])
@pytest.mark.parametrize("added", ["joint_line", "crack"])
@pytest.mark.parametrize("kind", ["polygon", "none"])
def test_a_label_that_an_overlay_adds_moves_nothing(split, added, kind):
    table = table_of(*rows_of("c", "crack", 30, 20), *rows_of("t", "taping_area", 90, 40, 10))
    overlay = table[table.label == "taping_area"][::3].assign(label=added, annotation_kind=kind)
    both = pd.concat([table, overlay], ignore_index=True)
    alone, together = assign_splits(table, split, 42), assign_splits(both, split, 42)
    assert together[: len(table)].equals(alone)
    assert together[len(table) :].tolist() == alone[overlay.index].tolist()


# --- By image, as the reference report


def test_image_split_has_the_reference_reports_counts_and_its_rule():
    cracks = rows_of("cracks", "crack", 5369, 1110, 12)
    joints = rows_of("joints", "taping_area", 1020, 164, 2)
    table = table_of(*cracks, *joints)
    split = assign_splits(table, "image", 42)
    annotated = table.annotation_kind != "none"
    assert set(split[~annotated]) == {"train"}
    for label, rows, expected in (("crack", cracks, (3758, 805, 806)), ("taping_area", joints, (714, 153, 153))):
        counts = split[annotated & (table.label == label)].value_counts()
        assert tuple(counts[["train", "val", "test"]]) == expected
        # The rule again, written down independently.
        ids = sorted(image_id for image_id, _, _, kind in rows if kind != "none")
        random.Random(42).shuffle(ids)
        n_train, n_val = int(0.7 * len(ids)), int(0.15 * len(ids))
        members = {name: set(table.image_id[split == name]) for name in ("train", "val", "test")}
        assert set(ids[:n_train]) <= members["train"]
        assert set(ids[n_train : n_train + n_val]) <= members["val"]
        assert set(ids[n_train + n_val :]) <= members["test"]


def test_image_split_keeps_all_rows_of_an_image_together():
    table = table_of(*rows_of("t", "taping_area", 50, 10))
    table = pd.concat([table, table.assign(label="joint_line")], ignore_index=True)
    split = assign_splits(table, "image", 1)
    assert (split.groupby(table.image_id).nunique() == 1).all() and split.nunique() == 3


@pytest.mark.parametrize("n", [0, 1, 2, 7, 20, 9999])
def test_the_shares_are_cut_down_to_whole_ids(n):
    counts = [list(split_ids([str(i) for i in range(n)], 1).values()).count(name) for name in ("train", "val", "test")]
    assert counts == [n * 70 // 100, n * 15 // 100, n - n * 70 // 100 - n * 15 // 100]


@given(st.lists(st.text(max_size=3), max_size=30), st.integers())
def test_split_ids_takes_each_id_once(ids, seed):
    assigned = split_ids(ids, seed)
    assert assigned.keys() == set(ids) and assigned == split_ids(ids[::-1], seed)
    n = len(assigned)
    counts = [list(assigned.values()).count(name) for name in ("train", "val")]
    assert counts == [int(0.7 * n), int(0.15 * n)]


# --- As published


def test_publishers_split_is_the_exports_parts():
    parts = ["train", "valid", "test", "valid"]
    table = table_of(*((f"a.b/{part}/{i}.jpg", "p", "crack", "box") for i, part in enumerate(parts)))
    assert assign_splits(table, "publisher", 42).tolist() == ["train", "val", "test", "val"]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split is 'random', not one of photo, image, publisher"):
        assign_splits(table_of(*rows_of("c", "crack", 3, 3)), "random", 42)


# --- Leaks

HAND_MADE = pd.DataFrame(
    [
        ("1", "a", "crack", "train"),
        ("2", "a", "crack", "val"),  # leaks
        ("3", "a", "crack", "val"),  # leaks
        ("4", "b", "crack", "val"),
        ("5", "c", "crack", "test"),
        ("6", "d", "taping_area", "train"),
        ("7", "d", "taping_area", "test"),  # leaks
        ("7", "d", "joint_line", "test"),  # leaks
        ("8", "a", "joint_line", "val"),  # leaks: its photograph is in train, under another label
        ("9", "b", "joint_line", "val"),  # shares its photograph with val only
    ],
    columns=["image_id", "photo_id", "label", "split"],
)


def test_leak_report_on_a_table_counted_by_hand():
    assert leak_report(HAND_MADE).to_dict("records") == [
        dict(label="crack", split="val", n_images=3, n_photographs=2, n_leaked=2, share_leaked=2 / 3),
        dict(label="crack", split="test", n_images=1, n_photographs=1, n_leaked=0, share_leaked=0),
        dict(label="taping_area", split="test", n_images=1, n_photographs=1, n_leaked=1, share_leaked=1),
        dict(label="joint_line", split="val", n_images=2, n_photographs=2, n_leaked=1, share_leaked=0.5),
        dict(label="joint_line", split="test", n_images=1, n_photographs=1, n_leaked=1, share_leaked=1),
    ]


def test_leak_report_of_nothing_held_out_is_empty():
    report = leak_report(HAND_MADE[HAND_MADE.split == "train"])
    assert report.empty and list(report.columns) == list(leak_report(HAND_MADE).columns)
    assert not leak_report(HAND_MADE[HAND_MADE.split != "train"]).n_leaked.any()


def test_the_three_splits_compared():
    rows = [(f"c/{part}/{i}.jpg", f"p{i % 20}", "crack", "box") for part in ("train", "valid") for i in range(100)]
    report = compare_splits(table_of(*rows), 42).set_index("split")
    assert list(report.index) == ["photo / val", "photo / test", "image / val", "image / test", "publisher / val"]
    assert report.n_leaked.tolist() == [0, 0, 30, 30, 100]
    assert report.n_images.tolist() == [30, 30, 30, 30, 100]
