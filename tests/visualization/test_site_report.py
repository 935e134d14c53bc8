import os
import re
from html import unescape
from importlib.resources import files

import pandas as pd
import pytest
from PIL import Image

from drywall_seg.inference import Predictor
from drywall_seg.inference.measure import scale_of
from drywall_seg.visualization.site_report import SIDES, inspect_site, picture_side
from tests.inference.channels import PROMPTS, SURE, VAGUE, Channels, photo

CRACK, TAPE, JOINT = PROMPTS
HOSTILE = "<script>alert(1)<script> & \"x\" '{{ 7 * 7 }}'.png"
LONG, SHORT = (0, SURE, slice(50, 60), slice(20, 220)), (0, SURE, slice(90, 120), slice(20, 100))
PHOTOS = {
    "a.png": [LONG, SHORT],
    HOSTILE: [LONG, (0, VAGUE, slice(50, 60), slice(120, 220))],
    "d.png": [(2, SURE, slice(95, 103), slice(20, 280)), (2, SURE, slice(10, 190), slice(145, 153))],
    "e.png": [],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name, bars in PHOTOS.items():
        Image.fromarray(photo(*bars)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken<b>.jpg").write_text("no photo")
    return tmp_path / "in"


def page_of(folder, predictor=None, **settings):
    out = folder.parent / "out"
    inspect_site(predictor or Channels(), folder, out, PROMPTS, **settings)
    return (out / "report.html").read_text(encoding="utf-8")


def text_of(page):
    return " ".join(unescape(re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


def rows_of(page):
    """The findings of the sortable table, cell by cell."""
    table = page[page.index('<table id="findings">') :].partition("</table>")[0]
    return [re.findall(r"<td.*?</td>", row, re.DOTALL) for row in table.split("<tr>")[2:]]


def test_one_file_that_needs_nothing_else(folder):
    page = page_of(folder)
    assert sorted(os.listdir(folder.parent / "out")) == [
        ".lock", "findings.csv", "photos.csv", "report.html", "review.csv"
    ]  # fmt: skip
    bare = re.sub(r"data:image/jpeg;base64,[\w+/=]*", "data:", page)
    assert "http" not in bare and "@import" not in bare and "url(" not in bare
    assert set(re.findall(r"""(?:src|href)=["']([^"']*)""", bare)) <= {"data:", *re.findall(r"#[\w-]+", bare)}
    targets = set(re.findall(r'href="#([\w-]+)"', page))
    assert targets <= set(re.findall(r'id="([\w-]+)"', page)) and len(targets) >= 6
    assert len(re.findall("<img ", page)) == 4 == len(re.findall(r"<img [^>]*alt=", page))


def test_hostile_names_are_text(folder):
    page = page_of(folder)
    assert "<script>alert" not in page and "<b>.jpg" not in page and "49'.png" not in page
    assert HOSTILE in text_of(page) and "broken<b>.jpg" in text_of(page)
    assert len(re.findall("<script", page)) == 1


def test_the_summary(folder):
    page = page_of(folder)
    text = text_of(page)
    assert "Photos 4 1 more could not be read" in text and "To look at 1 photos" in text
    assert "segment crack 3 cracks 480 px long together, on 2 photos" in text
    assert "segment taping area none" in text
    assert "trace joint line 440 px of joint to tape, in 2 straight runs, on 1 photo" in text
    assert "Nothing found on 1 photo" in text and "Could not be read broken<b>.jpg" in text
    assert "No scale was given: all sizes are in pixels" in text
    assert "0123456789abcdef" in text and "chosen by hand" in text and "(as joint_line) 0.50" in text
    assert "no structural assessment" in text and "under 3 pixels wide has no width" in text


def test_what_to_look_at_comes_first(folder):
    page = page_of(folder)
    first = text_of(page[page.index('id="first"') : page.index('id="classes"')])
    assert re.search(r"broken<b>.jpg cannot be read.*script.*50% of the marked area hangs", first)
    order = [unescape(name) for name in re.findall(r"<h3>(.*?)</h3>", page)]
    assert order == [HOSTILE, "a.png", "d.png"]


def test_the_table_has_what_to_sort_by(folder):
    page = page_of(folder)
    heads = re.findall(r"<th [^>]*data-sort[^>]*>[^<]*</th>", page)
    names = [re.sub("<.*?>", "", head) for head in heads]
    assert names == ["Photo", "Class at most", "Length", "Width of mark", "Doubt", "Review of photo"]
    assert [name for head, name in zip(heads, names, strict=True) if "aria-sort" in head] == ["Review of photo"]
    rows = rows_of(page)
    values = [[float(re.search(r'data-value="([^"]*)"', cell)[1]) for cell in row] for row in rows]
    assert len(rows) == 4 and all(len(row) == len(heads) for row in values)
    review = [row[-1] for row in values]
    assert review == sorted(review, reverse=True) and review[0] == 0.5
    assert [text_of(row[2]) for row in rows] == ["200 px", "80 px", "200 px", "440 px"]
    assert "<button" not in page  # a script makes them: without one, nothing looks as if it could be pressed


def test_millimetres_stand_above_pixels_and_the_source_is_named(folder):
    page = page_of(folder, scales={"a.png": scale_of(0.09)})
    text = text_of(page)
    lengths = {text_of(row[2]): float(re.search(r'data-value="([^"]*)"', row[2])[1]) for row in rows_of(page)}
    assert lengths["7.2 mm"] > lengths["440 px"] > lengths["200 px"] > 0
    assert "Building Research Establishment, Digest 251, 1995" in text
    assert "3 photos had no scale" in text and "25 mm and 200 px long together" in text
    assert "photos with a scale" in text and "by width in pixels" in text
    other = text_of(page_of(folder, scales=scale_of(0.09), limits={"little": 2.0, "much": float("inf")}))
    assert "These limits were given by hand" in other and "little up to 2 mm, much above" in other
    assert "photos of different sizes" not in other
    Image.fromarray(photo(size_hw=(100, 100))).save(folder / "f.png")
    assert "One scale was used for photos of different sizes" in text_of(page_of(folder, scales=scale_of(0.09)))


def test_pictures_keep_to_the_budget_and_what_is_left_out_is_said(folder):
    part = page_of(folder, budget=8000)
    kept = [len(data) for data in re.findall(r"base64,([\w+/=]*)", part)]
    assert len(kept) == 2 and sum(kept) <= 8000
    assert "2 photos are shown without a picture" in text_of(part)
    assert part.index("base64") < part.index("<h3>a.png</h3>")  # those to look at have theirs
    none = page_of(folder, budget=10)
    assert "base64" not in none and "4 photos are shown without a picture" in text_of(none)


@pytest.mark.parametrize("count", [1, 30, 400, 3000, 100_000])
def test_more_photos_get_smaller_pictures(count):
    side = picture_side(count)
    assert SIDES[0] <= side <= SIDES[1] and side <= picture_side(max(1, count // 2))
    if SIDES[0] < side < SIDES[1]:
        assert count * side * side * 0.75 * 0.2 * 4 / 3 == pytest.approx(16e6, rel=0.02)


def test_many_small_findings_are_left_to_the_table(folder):
    specks = [(0, SURE, slice(10, 14), slice(20 * i, 20 * i + 6)) for i in range(10)]
    Image.fromarray(photo(*specks)).save(folder / "specks.png")
    page = page_of(folder)
    assert "And 4 smaller ones, in findings.csv" in text_of(page)
    assert "The 10 most important of 14; all are in findings.csv" in text_of(page)
    assert (pd.read_csv(folder.parent / "out" / "findings.csv").photo == "specks.png").sum() == 10


def test_a_run_that_fails_leaves_the_report_that_was_there(folder, monkeypatch):
    before = page_of(folder)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("drywall_seg.visualization.site_report.render", fail)
    with pytest.raises(MemoryError):
        page_of(folder)
    out = folder.parent / "out"
    assert (out / "report.html").read_text(encoding="utf-8") == before
    assert not list(out.glob(".partial*"))


class Stopped(Channels):
    """Answers so many times, and then the user has had enough."""

    def __init__(self, answers):
        super().__init__()
        self.left = answers

    def predict(self, *arguments, **options):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().predict(*arguments, **options)


def files_of(out):
    found = {path.name: path.read_text(encoding="utf-8") for path in out.iterdir() if path.is_file()}
    return found | {"report.html": re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", found["report.html"])}


@pytest.mark.parametrize("scales", [None, scale_of(0.5), {"d.png": scale_of(0.5)}])
def test_a_stopped_one_goes_on_with_what_is_left(folder, scales):
    page_of(folder, scales=scales)
    out = folder.parent / "out"
    whole = files_of(out)
    out.rename(folder.parent / "whole")
    with pytest.raises(KeyboardInterrupt):
        page_of(folder, Stopped(5), scales=scales)  # two photos of four, and the third once of twice
    assert len(list((out / ".inspected").glob("*.json"))) == 2 and not (out / "report.html").exists()
    (out / ".inspected" / "1.json").write_text("{", encoding="utf-8")
    again = Channels()
    page_of(folder, again, scales=scales)
    assert again.calls == 2 * 3 and files_of(out) == whole
    assert not (out / ".inspected").exists()


@pytest.mark.parametrize("change", ["photo", "scale", "sentence", "flips"])
def test_what_depends_on_what_has_changed_is_done_again(folder, change):
    with pytest.raises(KeyboardInterrupt):
        page_of(folder, Stopped(4))
    if change == "photo":
        Image.fromarray(photo(LONG)).save(folder / sorted(PHOTOS)[0])
    again = Channels()
    settings = {"scale": {"scales": scale_of(0.5)}, "flips": {"flips": False}}.get(change, {})
    inspect_site(again, folder, folder.parent / "out", PROMPTS[: 2 if change == "sentence" else 3], **settings)
    assert again.calls == {"photo": 2 * 3, "flips": 4}.get(change, 2 * 4)


def test_nothing_to_say(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(photo()).save(tmp_path / "in" / "a.png")
    text = text_of(page_of(tmp_path / "in"))
    assert "No photo stands out" in text and "Nothing found on 1 photo" in text and "all could be read" in text
    (tmp_path / "in" / "a.png").write_text("broken")
    text = text_of(page_of(tmp_path / "in"))
    assert "Photos 0 1 more could not be read" in text and "1 photo could not be read" in text


def test_a_folder_without_photos_writes_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no photo in"):
        page_of(tmp_path / "in")
    assert not (tmp_path / "out").exists()


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_are_read_in_light_and_in_the_dark():
    css = files("drywall_seg.visualization").joinpath("assets/site_report.html").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", line)) for line in css.splitlines() if "--back:" in line]
    assert len(schemes) == 2
    for scheme in schemes:
        back = luminance(scheme["back"])
        for name in ("text", "dim", "link", "warn"):
            low, high = sorted((back, luminance(scheme[name])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name
    rules = css[: css.index("</style>")]
    used = {name for name in re.findall(r"[ {]color: ([^;]+);", rules)}
    assert used <= {"var(--text)", "var(--dim)", "var(--link)", "inherit"}


def test_the_compact_model_on_the_sample(sample_root, tmp_path):
    (tmp_path / "in").mkdir()
    for kind in ("cracks.coco", "Drywall-Join-Detect.coco"):
        path = sorted((sample_root / kind / "valid").glob("*.jpg"))[0]
        (tmp_path / "in" / path.name).symlink_to(path)
    page = page_of(tmp_path / "in", Predictor.load("compact"), scales=scale_of(1.5))
    text = text_of(page)
    assert len(re.findall("base64,", page)) == 2 and len(rows_of(page)) >= 2
    assert re.search(r"segment crack [1-9]\d* cracks?", text) and "of joint to tape" in text


def test_settings_are_those_given(folder):
    text = text_of(page_of(folder, flips=False))
    assert "mirrored" not in text
    assert "mirrored" in text_of(page_of(folder))
