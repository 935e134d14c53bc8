import io
import json
import os
import sys
import types
import zipfile

import pytest

from drywall_seg.config import resolve_config
from drywall_seg.data import download
from drywall_seg.data.coco import DataError, find_exports
from drywall_seg.data.download import _drive_id, confirmed_address, fetch_data, roboflow_key
from drywall_seg.data.http import DownloadError, failure_of
from drywall_seg.data.manifest import prepare
from tests.data.exports import contents, snapshot
from tests.faults.server import as_json, file, serve

FILES = {"train/_annotations.coco.json": b'{"images": []}', "train/a.jpg": b"photo"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project's root of its own."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_run_all.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    return tmp_path


def write_zip(path, files=FILES, top=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content)
    return path


def test_a_folder_is_returned_as_it_is(home):
    (home / "data.zip").mkdir()  # a folder all the same
    for data_root in ("data/sample", "not/there/yet", str(home), "data.zip"):
        assert fetch_data(data_root) == fetch_data(data_root, "", "") == type(home)(data_root)
    assert [p.name for p in home.iterdir() if p.name != "notebooks"] == ["data.zip"]


def test_a_zip_is_unpacked_beside_itself_once(home):
    path = write_zip(home / "in" / "cracks.coco.ZIP")
    assert fetch_data("in/cracks.coco.ZIP").as_posix() == "in/cracks.coco"
    assert contents(home / "in" / "cracks.coco") == FILES
    assert [e.label for e in find_exports(home / "in" / "cracks.coco")] == ["crack"]
    record = json.loads((home / "in" / "cracks.coco.source.json").read_text())
    assert (record["files"], record["unpacked_bytes"], record["bytes"]) == (2, 19, path.stat().st_size)
    before = snapshot(home)
    assert fetch_data(str(path)) == home / "in" / "cracks.coco"
    assert snapshot(home) == before


@pytest.mark.parametrize("top", ["both/", ""])
def test_a_zip_of_several_exports(home, top):
    files = {
        f"{name}/{file}": data for name in ("cracks.coco", "Drywall-Join-Detect.coco") for file, data in FILES.items()
    }
    write_zip(home / "both.zip", files, top)
    exports = find_exports(home / fetch_data("both.zip"))
    assert [(e.folder.relative_to(home).as_posix(), e.label) for e in exports] == [
        ("both/Drywall-Join-Detect.coco", "taping_area"),
        ("both/cracks.coco", "crack"),
    ]


def test_a_changed_zip_is_unpacked_again_and_a_broken_one_leaves_what_was(home):
    path = write_zip(home / "cracks.zip")
    fetch_data("cracks.zip")
    write_zip(path, FILES | {"train/b.jpg": b"new"})
    fetch_data("cracks.zip")
    assert (home / "cracks" / "train" / "b.jpg").read_bytes() == b"new"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cut off or damaged"):
        fetch_data("cracks.zip")
    assert len(contents(home / "cracks")) == 3


def test_what_a_person_added_stays_and_what_is_missing_comes_back(home):
    write_zip(home / "cracks.zip")
    fetch_data("cracks.zip")
    (home / "cracks" / "mine.coco.json").write_text("{}")
    fetch_data("cracks.zip")
    assert (home / "cracks" / "mine.coco.json").exists()
    (home / "cracks" / "mine.coco.json").unlink()
    (home / "cracks" / "train" / "a.jpg").unlink()
    fetch_data("cracks.zip")
    assert contents(home / "cracks") == FILES


def test_a_folder_with_something_else_is_not_overwritten(home):
    write_zip(home / "cracks.zip")
    (home / "cracks").mkdir()
    (home / "cracks" / "mine").write_text("mine")
    with pytest.raises(
        DataError, match="cracks: is there already and not from zip:cracks.zip; give another"
    ) as failure:
        fetch_data("cracks.zip")
    assert "\n" not in str(failure.value)
    assert contents(home / "cracks") == {"mine": b"mine"}
    (home / "cracks" / "mine").unlink()  # an empty one is in nobody's way
    fetch_data("cracks.zip")
    assert contents(home / "cracks") == FILES


@pytest.mark.parametrize("record", [None, "{", "[]", '{"source": "zip:cracks.zip"}'])
def test_what_was_unpacked_by_hand_is_taken_for_the_zips(home, record):
    write_zip(home / "cracks.zip")
    with zipfile.ZipFile(home / "cracks.zip") as archive:
        archive.extractall(home / "cracks")
    if record:
        (home / "cracks.source.json").write_text(record)
    fetch_data("cracks.zip")
    assert contents(home / "cracks") == FILES
    assert json.loads((home / "cracks.source.json").read_text())["source"] == "zip:cracks.zip"


def test_beside_a_zip_that_lies_where_nothing_can_be_written(home, monkeypatch):
    path = write_zip(home / "mounted" / "cracks.coco.zip")
    monkeypatch.setattr(os, "access", lambda folder, _: folder != path.parent)
    assert fetch_data(str(path)).as_posix() == "data/raw/cracks.coco"
    assert contents(home / "data" / "raw" / "cracks.coco") == FILES
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_no_zip_or_not_there(home):
    (home / "a.tar").touch()
    for name, message in (("a.tar", "neither a folder nor a .zip"), ("b.zip", "b.zip: no such zip")):
        with pytest.raises(DataError, match=message):
            fetch_data(name)


def test_the_sample_is_not_mixed_with_what_is_fetched(home, monkeypatch):
    asked = []
    for name in ("drive", "roboflow"):
        monkeypatch.setattr(f"drywall_seg.data.download.fetch_{name}", lambda *of: asked.append(of))
    for data_root in ("data/sample", "data/sample/cracks.coco"):
        assert fetch_data(data_root, drive="A" * 30).as_posix() == "data/raw"
        assert fetch_data(data_root, roboflow="a/b/1").as_posix() == "data/raw"
    assert {folder for _, folder in asked} == {home / "data" / "raw"}
    assert len(asked) == 4
    with pytest.raises(DataError, match="not both"):
        fetch_data("data/raw", "A" * 30, "a/b/1")


@pytest.mark.parametrize(
    "version", ["cracks", "a/b", "a/b/c", "a/b/1/2", "../b/1", "a/../1", "a/b/1?api_key=x", "a b/c/1"]
)
def test_what_is_no_roboflow_version(home, version):
    with pytest.raises(DownloadError, match="is not workspace/project/version, such as") as failure:
        fetch_data("data/raw", roboflow=version)
    assert "api_key" not in str(failure.value)


def test_without_a_key_it_says_where_one_goes(home):
    with pytest.raises(DownloadError, match="no key: set ROBOFLOW_API_KEY in the environment"):
        fetch_data("data/raw", roboflow="a/b/1")
    assert not (home / "data").exists()


def colab(monkeypatch, get):
    userdata = types.SimpleNamespace(get=get)
    for name, module in {
        "google.colab": types.SimpleNamespace(userdata=userdata),
        "google.colab.userdata": userdata,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_the_key_is_the_environments_then_colabs(home, monkeypatch, capsys):
    def never(_):
        raise TimeoutError("Requesting secret ROBOFLOW_API_KEY timed out. Secrets can only be fetched from the UI.")

    colab(monkeypatch, {"ROBOFLOW_API_KEY": "of colab\n"}.get)
    assert roboflow_key() == "of colab"
    monkeypatch.setenv("ROBOFLOW_API_KEY", " of the environment ")
    colab(monkeypatch, never)
    assert roboflow_key() == "of the environment"
    monkeypatch.setenv("ROBOFLOW_API_KEY", " ")  # as good as none
    with pytest.raises(DownloadError, match="no key"):
        roboflow_key()
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    with pytest.raises(DownloadError, match="no key"):
        roboflow_key()
    assert "cannot be read here (TimeoutError)" in capsys.readouterr().out


ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"


@pytest.mark.parametrize(
    ("link", "more"),
    [
        (ID, ""),
        (f"https://drive.google.com/file/d/{ID}/view?usp=sharing", ""),
        (f"https://drive.google.com/file/u/1/d/{ID}/edit", ""),
        (f"https://drive.google.com/open?id={ID}", ""),
        (f"https://drive.google.com/uc?export=download&id={ID}&confirm=t", ""),
        (f"https://drive.usercontent.google.com/download?id={ID}&export=download", ""),
        (f"https://drive.google.com/file/d/{ID}/view?resourcekey=0-aB_c&usp=x", "&resourcekey=0-aB_c"),
    ],
)
def test_the_id_in_every_kind_of_drive_link(link, more):
    assert _drive_id(link) == (ID, more)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (f"https://drive.google.com/drive/folders/{ID}?usp=sharing", "is a folder; put the exports into one zip"),
        (f"https://evil.example/file/d/{ID}/view", "neither the id nor the link"),
        (f"https://drive.google.com.evil.example/open?id={ID}", "neither the id nor the link"),
        ("https://drive.google.com/drive/my-drive", "neither the id nor the link"),
        (f"http://[{ID}", "neither the id nor the link"),
        ("data/my.zip", "neither the id nor the link"),
    ],
)
def test_what_is_no_drive_link(home, link, message):
    with pytest.raises(DownloadError, match=message):
        fetch_data("data/raw", drive=link)


# As Drive wrote them in 2025, but for what does not matter here.
LARGE = (
    '<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body><p class="uc-warning-'
    'caption">Google Drive can\'t scan this file for viruses.</p><form id="download-form" action="https://drive.'
    'usercontent.google.com/download" method="get"><input type="submit" value="Download anyway"/>'
    f'<input type="hidden" name="id" value="{ID}"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="u-1"></form></body></html>'
)


def test_the_page_before_a_large_file_leads_to_it():
    """Through gdown, whose versions 5 and 6 both have this function; one without it is to be noticed here."""
    address = "https://drive.usercontent.google.com/download"
    assert confirmed_address(LARGE, "x") == f"{address}?id={ID}&export=download&confirm=t&uuid=u-1"


def test_no_error_of_requests_shows_through():
    url = "https://name:secret1@api.roboflow.com/a?api_key=secret2"
    errors = [OSError(url), ValueError(url), TimeoutError(f"{url} timed out"), ConnectionError(f"{url} refused")]
    for error in errors:
        text = str(failure_of(error, url, "Roboflow a/b/1"))
        assert "secret" not in text and "api.roboflow.com" in text


def test_from_roboflow_to_a_manifest(home, monkeypatch, sample_root):
    """Two versions in one call, from a server in the place of Roboflow, and what `01_prepare` makes of them."""
    monkeypatch.setenv("ROBOFLOW_API_KEY", "k")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        monkeypatch.setattr(download, "ROBOFLOW", server.address)
        for project, export in (("cracks-3ii36", "cracks.coco"), ("drywall-join-detect", "Drywall-Join-Detect.coco")):
            written = io.BytesIO()
            with zipfile.ZipFile(written, "w") as archive:
                for name, data in contents(sample_root / export).items():
                    archive.writestr(name, data)
            link = f"{server.address}/{project}.zip?key=signed"
            server.answers[f"/team/{project}/1/coco"] = [as_json({"export": {"link": link, "format": "coco"}})]
            server.answers[f"/{project}.zip"] = [file(written.getvalue())]
        versions = "team/cracks-3ii36/1, https://universe.roboflow.com/team/drywall-join-detect/dataset/1"
        data_root = fetch_data("data/raw", roboflow=versions)
    manifest = prepare(resolve_config(data_root=str(data_root)))
    assert set(manifest.table.source) == {"cracks-3ii36.coco", "drywall-join-detect.coco"}
    assert {"crack", "taping_area"} <= set(manifest.table.label)
