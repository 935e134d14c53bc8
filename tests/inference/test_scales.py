import math

import numpy as np
import pytest

from drywall_seg.inference.scales import choose_scale, parse_limits, parse_scale, read_scales

POINT = np.array([[10.0, 20.0]])


def test_each_form():
    assert parse_scale("mm_per_pixel", " 0.5 ")(POINT).tolist() == [[5, 10]]
    assert parse_scale("two_points", "0,0, 0,50, 100")(POINT).tolist() == [[20, 40]]
    assert np.allclose(parse_scale("rectangle", "0,0,100,0,100,50,0,50,200,100")(POINT), [[20, 40]])


@pytest.mark.parametrize(
    ("form", "text", "trouble"),
    [
        ("mm_per_pixel", "-1", "is no length above 0"),
        ("mm_per_pixel", "a", "could not convert"),
        ("mm_per_pixel", "nan", "it takes mm"),
        ("two_points", "1,2,3,4", "it takes x0,y0,x1,y1,mm"),
        ("two_points", "1,2,1,2,9", "are not two"),
        ("rectangle", "0,0,1,1,2,2,3,3,10,10", "are not those of a rectangle"),
        ("rectangle", "0,0,9,0,9,9,0,9,10", "it takes x0"),
    ],
)
def test_what_is_no_scale_is_named(form, text, trouble):
    with pytest.raises(ValueError, match=f"^{form} '{text}': .*{trouble}"):
        parse_scale(form, text)


def test_a_table(tmp_path):
    file = tmp_path / "scales.csv"
    file.write_text('photo,mm_per_pixel,two_points\na.jpg,0.5,\n"b/c, d.jpg",,"0,0,0,50,100"\n')
    scales = read_scales(file)
    assert {name: scale(POINT).tolist() for name, scale in scales.items()} == {
        "a.jpg": [[5, 10]],
        "b/c, d.jpg": [[20, 40]],
    }


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("", "cannot be read as a table"),
        ("photo,mm\na.jpg,1\n", "needs photo and one of mm_per_pixel"),
        ("name,mm_per_pixel\na.jpg,1\n", "has the columns name, mm_per_pixel"),
        ("photo,mm_per_pixel\na.jpg,1\na.jpg,2\n", "'a.jpg' stands there twice"),
        ("photo,mm_per_pixel\na.jpg,\n", "'a.jpg' has 0 scales"),
        ('photo,mm_per_pixel,two_points\na.jpg,1,"0,0,1,1,5"\n', "'a.jpg' has 2 scales"),
        ("photo,mm_per_pixel\na.jpg,wide\n", "'a.jpg': mm_per_pixel 'wide'"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, text, trouble):
    file = tmp_path / "scales.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"scales\.csv: .*{trouble}"):
        read_scales(file)


def test_one_is_chosen(tmp_path):
    assert choose_scale() is None
    assert choose_scale(mm_per_pixel="2")(POINT).tolist() == [[20, 40]]
    (tmp_path / "s.csv").write_text("photo,mm_per_pixel\na.jpg,1\n")
    assert list(choose_scale(scales=tmp_path / "s.csv")) == ["a.jpg"]
    with pytest.raises(ValueError, match="mm_per_pixel and scales are given"):
        choose_scale(mm_per_pixel="2", scales=tmp_path / "s.csv")


def test_limits():
    assert parse_limits("thin=0.3,wide=inf") == {"thin": 0.3, "wide": math.inf}
    for text in ("thin", "thin=a", "a=2,b=1", "a=0", "a=1,a=2", "a=nan,b=2"):
        with pytest.raises(ValueError, match=f"limits '{text}'"):
            parse_limits(text)
