import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools import mask as coco_mask

from drywall_seg.cli import main
from drywall_seg.data.coco import DataError
from drywall_seg.data.corrections import FORMAT, import_corrections
from drywall_seg.data.manifest import build_manifest
from drywall_seg.images import read_mask
from tests.data.exports import annotation, image, write_export
from tests.faults.table import REFUSED

SHA = "a" * 64


def correction(**changes):
    """Of a photo 5 wide and 4 high, shown at its own size: the second column is marked."""
    return {
        "sha256": SHA,
        "name": "wall.jpg",
        "prompt": "segment crack",
        "label": "crack",
        "height": 4,
        "width": 5,
        "verdict": "right",
        "threshold": 0.431,
        "time": "2026-11-26T10:00:00.000Z",
        "model": "d0448d",
        "painted": False,
        "factor": 1,
        "size": [4, 5],
        "counts": [4, 4, 12],
    } | changes


def saved(tmp_path, *corrections, name="c.json", format=FORMAT):
    path = tmp_path / name
    path.write_text(json.dumps({"format": format, "made": "2026-11-26T10:00:00.000Z", "corrections": corrections}))
    return path


def read(tmp_path):
    return json.loads((tmp_path / "out" / "reviewed.coco.json").read_text())


def mask_of(entry, overlay):
    shapes = [shape for shape in overlay["annotations"] if shape["image_id"] == entry["id"]]
    return coco_mask.decode(shapes[0]["segmentation"]) if shapes else None


def test_what_is_right_becomes_truth_with_its_provenance(tmp_path):
    done = import_corrections(saved(tmp_path, correction()), tmp_path / "out")
    assert (done["n_imported"], done["n_older"], done["to_redraw"]) == (1, 0, [])
    overlay = read(tmp_path)
    (entry,) = overlay["images"]
    assert (entry["sha256"], entry["label"], entry["name"]) == (SHA, "crack", "wall.jpg")
    assert entry["reviewed"] == {
        "verdict": "right",
        "time": "2026-11-26T10:00:00.000Z",
        "model": "d0448d",
        "threshold": 0.431,
        "painted": False,
        "factor": 1,
    }
    expected = np.zeros((4, 5), int)
    expected[:, 1] = 1
    assert np.array_equal(mask_of(entry, overlay), expected)
    assert overlay["annotations"][0]["bbox"] == [1, 0, 1, 4] and overlay["annotations"][0]["area"] == 4


def test_what_was_shown_smaller_is_brought_to_its_own_size(tmp_path):
    import_corrections(saved(tmp_path, correction(factor=2, size=[2, 3], counts=[4, 2])), tmp_path / "out")
    overlay = read(tmp_path)
    expected = np.zeros((4, 5), int)
    expected[:, 4] = 1  # the third column of three, of which the photo has the first half
    assert np.array_equal(mask_of(overlay["images"][0], overlay), expected)


def test_wrong_means_that_nothing_is_there_and_redraw_alone_means_nothing(tmp_path):
    wrong = correction(verdict="wrong", counts=[20])
    noted = correction(verdict="redraw", counts=None, label="joint_line", name="other.jpg")
    done = import_corrections(saved(tmp_path, wrong, noted), tmp_path / "out")
    assert done["to_redraw"] == ["other.jpg"]
    overlay = read(tmp_path)
    assert [entry["label"] for entry in overlay["images"]] == ["crack"] and overlay["annotations"] == []


def test_the_later_judgement_stays_whatever_comes_first(tmp_path):
    early, late = correction(verdict="wrong", counts=[20]), correction(time="2026-11-27T09:00:00.000Z")
    other = correction(sha256="b" * 64)
    import_corrections(saved(tmp_path, late, other), tmp_path / "out")
    before = read(tmp_path)
    done = import_corrections(saved(tmp_path, early), tmp_path / "out")
    assert (done["n_imported"], done["n_older"]) == (0, 1)
    assert read(tmp_path) == before
    import_corrections(saved(tmp_path, late, other), tmp_path / "out")
    assert read(tmp_path) == before and len(before["images"]) == 2
    import_corrections(
        saved(tmp_path, correction(verdict="wrong", counts=[20], time="2026-11-28T09:00:00Z")), tmp_path / "out"
    )
    assert [entry["reviewed"]["verdict"] for entry in read(tmp_path)["images"]] == ["wrong", "right"]


@pytest.mark.fault("own files", REFUSED)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "../../etc/passwd"}, "sha256 is '../../etc/passwd'"),
        ({"label": "screw"}, "label is 'screw'"),
        ({"label": ["crack"]}, "label is "),
        ({"verdict": "fine"}, "verdict is 'fine'"),
        ({"verdict": None}, "verdict is None"),
        ({"time": "yesterday"}, "time is 'yesterday'"),
        ({"time": "2026-11-26T10:00:00"}, "time is "),
        ({"threshold": 2}, "threshold is 2"),
        ({"threshold": True}, "threshold is True"),
        ({"height": 0}, "height is 0"),
        ({"height": True}, "height is True"),
        ({"height": 200_000, "width": 200_000}, "40000 megapixels"),
        ({"factor": 0}, "factor is 0"),
        ({"size": [4, 6]}, "size \\[4, 6\\] is not 1/1 of the photo's, \\[4, 5\\]"),
        ({"size": [4]}, "size is \\[4\\]"),
        ({"counts": [4, 4]}, "do not add up"),
        ({"counts": [-4, 24]}, "do not add up"),
        ({"counts": [4.5, 15.5]}, "do not add up"),
        ({"counts": None}, "do not add up"),
        ({"painted": "no"}, "painted is 'no'"),
        ({"name": None}, "name is None"),
        ({"name": "\ud800"}, "name is "),
    ],
)
def test_a_value_that_cannot_be_right_is_named_and_nothing_is_written(tmp_path, changes, message):
    path = saved(tmp_path, correction(), correction(**changes))
    with pytest.raises(DataError, match=f"c.json: correction 2: .*{message}"):
        import_corrections(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("own files", REFUSED)
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', "[" * 100_000, '{"format": null}', "\x00"])
def test_a_file_that_is_none_of_the_viewers_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match="c.json: not a file of corrections"):
        import_corrections(tmp_path / "c.json", tmp_path / "out")


@pytest.mark.fault("own files", REFUSED)
def test_an_overlay_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reviewed.coco.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(DataError, match="not an overlay of corrections"):
        import_corrections(saved(tmp_path, correction()), tmp_path / "out")


def test_an_overlay_whose_hash_somebody_made_a_number_is_refused(tmp_path):
    import_corrections(saved(tmp_path, correction()), tmp_path / "out")
    overlay = tmp_path / "out" / "reviewed.coco.json"
    data = json.loads(overlay.read_text())
    data["images"][0]["sha256"] = 7
    overlay.write_text(json.dumps(data))
    with pytest.raises(DataError, match="not an overlay of corrections"):
        import_corrections(saved(tmp_path, correction(sha256="1" * 64)), tmp_path / "out")
    assert json.loads(overlay.read_text()) == data


def test_the_next_manifest_has_the_corrected_truth(tmp_path):
    """By the command line; two labels of one photo, and a hostile name."""
    folder = tmp_path / "in" / "cracks.coco"
    write_export(folder, [image(1), image(2)], [annotation(1, 1), annotation(2, 2)])
    photos = sorted((folder / "train").glob("*.jpg"))
    first, second = (hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos)
    size = {"height": 24, "width": 32, "size": [24, 32], "name": '<script>"\u202e'}
    marked = correction(sha256=first, counts=[24 * 3, 24, 24 * 28], **size)
    gone = correction(sha256=second, verdict="wrong", counts=[24 * 32], **size)
    line = correction(sha256=first, label="joint_line", counts=[0, 24, 24 * 31], **size)
    path = saved(tmp_path, marked, gone, line)
    result = CliRunner().invoke(main, ["import-corrections", str(path), "--out", str(tmp_path / "a")])
    assert result.exit_code == 0, result.output
    assert "3 corrections in" in result.output
    manifest = build_manifest(tmp_path / "in", tmp_path / "m", overlays=sorted((tmp_path / "a").glob("*.coco.json")))
    assert manifest.info["summary"]["overlays"]["reviewed.coco.json"] == {
        "n_matched": 3,
        "n_unmatched": 0,
        "n_added": 1,
        "n_replaced": 2,
    }
    truth = {(row.image_id[-9:], row.label): read_mask(manifest.mask_file(row)) for row in manifest.table.itertuples()}
    rows = [(row.label, row.annotation_kind, row.mask_area) for row in manifest.table.itertuples()]
    assert sorted(rows) == [("crack", "none", 0), ("crack", "rle", 24), ("joint_line", "rle", 24)]
    assert np.flatnonzero(truth[photos[0].name[-9:], "crack"].any(axis=0)).tolist() == [3]
    assert np.flatnonzero(truth[photos[0].name[-9:], "joint_line"].any(axis=0)).tolist() == [0]
