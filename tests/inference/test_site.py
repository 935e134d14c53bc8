import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drywall_seg.inference import Predictor
from drywall_seg.inference.findings import FINDINGS
from drywall_seg.inference.measure import scale_of
from drywall_seg.inference.site import PHOTOS, find_site_photos, inspect_folder, write_tables
from tests.inference.channels import PROMPTS, SURE, VAGUE, Channels, photo

CRACK, TAPE, JOINT = PROMPTS
LONG = (0, SURE, slice(50, 60), slice(20, 220))
HALF = (0, VAGUE, slice(50, 60), slice(120, 220))


@pytest.fixture
def folder(tmp_path):
    """Four photos in their order of names: a sure crack, a doubtful one, a joint, nothing; and a broken file."""
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name, bars in {
        "a.png": [LONG],
        "b/c.png": [LONG, HALF],
        "d.png": [(2, SURE, slice(95, 103), slice(20, 280))],
        "e.png": [],
    }.items():
        Image.fromarray(photo(*bars)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    return tmp_path / "in"


def test_a_broken_photo_is_named_and_the_others_go_on(folder):
    site = inspect_folder(Channels(), folder, PROMPTS)
    assert site.photos.columns.tolist() == PHOTOS and len(site.photos) == 4 * 3 + 1
    assert list(site.errors) == ["broken.jpg"] and "broken.jpg" in site.errors["broken.jpg"]
    assert site.findings.groupby("photo").size().to_dict() == {"a.png": 1, "b/c.png": 1, "d.png": 1}
    assert site.findings.columns.tolist() == ["photo", *FINDINGS]


def test_what_to_look_at_first(folder):
    review = inspect_folder(Channels(), folder, PROMPTS).review
    assert review.photo.tolist() == ["broken.jpg", "b/c.png", "a.png", "d.png", "e.png"]
    assert review["look"].tolist() == [True, True, False, False, False]
    assert np.isnan(review.review[0]) and review.review[1:].tolist() == [0.5, 0, 0, 0]
    assert review.reason.tolist() == [
        "cannot be read",
        "segment crack: 50% of the marked area hangs on the model's threshold",
        "nothing stands out",
        "nothing stands out",
        "nothing found",
    ]


def test_the_tables(folder, tmp_path):
    site = inspect_folder(Channels(), folder, PROMPTS)
    write_tables(site, tmp_path / "out")
    read = {name: pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("findings", "photos", "review")}
    assert sorted(os.listdir(tmp_path / "out")) == ["findings.csv", "photos.csv", "review.csv"]
    assert read["findings"].length.tolist() == site.findings.length.round(4).tolist()
    assert float(read["findings"].runs[2]) == pytest.approx(260, rel=0.03)
    assert read["photos"].n.sum() == 3 and read["photos"].error.notna().sum() == 1
    assert read["review"].photo.tolist() == site.review.photo.tolist()


def test_photos_are_drawn_while_they_are_there(folder):
    drawn = {}
    inspect_folder(Channels(), folder, [CRACK], draw=lambda number, *rest: drawn.update({number: rest}))
    assert list(drawn) == [1, 2, 4, 5]  # the third is broken
    pixels, findings, masks = drawn[1]
    assert pixels.shape == (200, 300, 3) and len(findings) == 1 and list(masks) == [CRACK]


def test_a_scale_for_one_photo(folder):
    site = inspect_folder(Channels(), folder, [CRACK], {"b/c.png": scale_of(0.09)})
    rows = site.findings.set_index("photo")
    assert rows.unit.to_dict() == {"a.png": "px", "b/c.png": "mm"}
    assert rows.severity.to_dict() == {"a.png": "6 to 12 px", "b/c.png": "fine"}
    assert rows.length["b/c.png"] == pytest.approx(0.09 * rows.length["a.png"])


def test_a_photo_that_is_named_itself_is_one_alone(folder):
    assert find_site_photos(folder / "b" / "c.png") == {"c.png": folder / "b" / "c.png"}
    site = inspect_folder(Channels(), folder / "b" / "c.png", [CRACK])
    assert site.photos.photo.tolist() == ["c.png"]


def test_what_cannot_be_inspected_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"'c\.png', which is no photo in .*in"):
        inspect_folder(Channels(), folder, [CRACK], {"c.png": scale_of(1)})
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        inspect_folder(Channels(), tmp_path / "nowhere", [CRACK])
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no photo in .*none"):
        inspect_folder(Channels(), tmp_path / "none", [CRACK])
    with pytest.raises(ValueError, match="would both be saved"):
        inspect_folder(Channels(), folder, [CRACK, "Segment crack!"])


def test_a_folder_of_broken_photos_alone(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("no photo")
    site = inspect_folder(Channels(), tmp_path / "in", PROMPTS)
    write_tables(site, tmp_path)
    assert len(site.errors) == 1 and site.findings.empty and site.review["look"].tolist() == [True]


def test_names_that_are_no_text(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"\xff.png", b"line\nbreak, comma.png", b"\xfe.jpg"):
        with open(os.path.join(folder, name), "wb") as file:
            if name.endswith(b"png"):
                Image.fromarray(photo(LONG)).save(file, "PNG")
    assert len(find_site_photos(tmp_path)) == 3
    site = inspect_folder(Channels(), tmp_path, [CRACK])
    write_tables(site, tmp_path / "out")
    read = pd.read_csv(tmp_path / "out" / "photos.csv", dtype=str)
    assert read.photo.tolist() == site.photos.photo.tolist() == ["line\nbreak, comma.png", "\\udcfe.jpg", "\\udcff.png"]


def test_the_compact_model_on_the_sample(sample_root, tmp_path):
    (tmp_path / "in").mkdir()
    for kind in ("cracks.coco", "Drywall-Join-Detect.coco"):
        for path in sorted((sample_root / kind / "valid").glob("*.jpg"))[:2]:
            (tmp_path / "in" / path.name).symlink_to(path)
    site = inspect_folder(Predictor.load("compact"), tmp_path / "in", [CRACK, JOINT], scale_of(2.0))
    found = site.photos.assign(kind=site.photos.photo.str.partition("_")[0]).groupby(["kind", "label"]).n.sum()
    assert found["crack", "crack"] > 0 and found["joint", "joint_line"] > 0
    assert found["crack", "joint_line"] == found["joint", "crack"] == 0
    joints = site.findings[site.findings.label == "joint_line"]
    assert joints.length.max() > 200 and site.findings.review.between(0, 1).all()
    assert site.findings.disagreement.between(0, 1).all() and site.photos.disagreement.max() > 0
