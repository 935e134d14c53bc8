import pandas as pd
import pytest

from drywall_seg.evaluation.breakdowns import FAMILIES, break_down, capture_family, target_size


@pytest.mark.parametrize(
    ("photo_id", "family"),
    [
        ("1009-dat_png_jpg", "range images"),
        ("IMG_20220627_110122-jpg_1500x2000_jpg", "building site"),
        ("IMG_8202_JPG_jpg", "lab board"),
        ("2000x1500_0_resized_jpg", "lab board"),
        ("brick_cracking38_jpg", "cracking*"),
        ("crack201_jpg", "crack*"),
        ("a_0_11_png_jpg", "a_*, b_*"),
        ("images105_jpg", "image*"),
        ("Image_-24-_jpg", "image*"),
        ("photo_6158681956993318785_y_jpg", "photo_*"),
        ("00346-Copy_jpg", "numbered"),
        ("00002_jpg", "numbered"),
        ("old-stone-wall-with-crack-texture-design_153912-13283_jpg", "others"),
    ],
)
def test_families(photo_id, family):
    assert capture_family(photo_id) == family
    assert family in {*FAMILIES.values(), "others"}


@pytest.mark.parametrize(
    ("share", "name"),
    [
        (0, "none"),
        (1e-9, "under 1 %"),
        (0.01, "under 1 %"),
        (0.011, "1 to 3 %"),
        (0.1, "3 to 10 %"),
        (1.0, "over 10 %"),
    ],
)
def test_sizes(share, name):
    assert target_size(share) == name


def test_break_down():
    rows = [
        ["crack", "a", "polygon", "00001_jpg", 10, 0, 100, 10, 0.5, 0.6],
        ["crack", "a", "box", "00001_jpg", 0, 500, 100, 10, 0.1, 0.2],
        ["crack", "b", "polygon", "crack7_jpg", 0, 0, 100, 10, 1.0, 1.0],
    ]
    columns = "label source annotation_kind photo_id tp fn width height iou dice".split()
    table = break_down(pd.DataFrame(rows, columns=columns)).set_index(["by", "value"])
    assert table.loc[("source", "a"), ["n_images", "n_photographs", "mean_iou"]].tolist() == [2, 1, pytest.approx(0.3)]
    assert table.loc[("annotation kind", "polygon"), "mean_iou"] == 0.75
    assert table.loc[("capture family", "numbered"), "n_images"] == 2
    assert table.loc["size of the target"].index.tolist() == ["none", "under 1 %", "over 10 %"]
    assert table.few_photographs.all()
    assert break_down(pd.DataFrame(columns=columns)).empty
