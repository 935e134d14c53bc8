import errno
import io
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections import namedtuple

import pytest

from drywall_seg.data import unpack
from drywall_seg.data.coco import DataError
from drywall_seg.data.unpack import kind_of, same_files, top_folder, unpack_zip
from tests.data.exports import contents
from tests.faults.table import READ, REFUSED

PHOTO = random.Random(0).randbytes(40_000)
USUAL = {"train/_annotations.coco.json": b"{}" * 50, "train/a.jpg": PHOTO, "test/a.jpg": b"2"}


def zip_of(members, compression=zipfile.ZIP_DEFLATED):
    """A zip's bytes of (name or ZipInfo, content), names as they are."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return written.getvalue()


def member(name="train/b.jpg", mode=0, **fields):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def renamed(to, placeholder="train/b.jpg"):
    """A zip with a name that zipfile would not write: the bytes of a placeholder are replaced, of the same length."""
    to = to if isinstance(to, bytes) else to.encode()
    name = placeholder.encode().ljust(len(to), b"_")
    data = zip_of([*USUAL.items(), (name.decode(), b"3")])
    return data.replace(name, to.ljust(len(name), b"_"))


def patched(offset, form, value, data=None):
    """A zip with a field of its last central header changed."""
    data = bytearray(data or zip_of([*USUAL.items(), ("train/b.jpg", PHOTO)]))
    struct.pack_into(form, data, data.rindex(b"PK\x01\x02") + offset, value)
    return bytes(data)


def directory_only(count):
    """A zip whose members all are the same bytes of the file."""
    data = zip_of({"train/0000.jpg": PHOTO}, zipfile.ZIP_STORED)
    start, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry, tail = data[start:end], bytearray(data[end:])
    entries = b"".join(entry.replace(b"0000", b"%04d" % i) for i in range(count))
    struct.pack_into("<HHI", tail, 8, count, count, len(entries))
    return data[:start] + entries + bytes(tail)


FLAG_BITS, METHOD, CRC, PACKED, SIZE, LOCAL = (8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I")
GOOD = zip_of(USUAL)
NO_ZIP = "not a zip, but "
CUT = "a zip that is cut off or damaged"
OUT = "leads out of its folder"
HOSTILE = {
    "path traversal": (renamed("../../evil1"), OUT),
    "path traversal inside": (renamed("train/../b1"), OUT),
    "a dot": (renamed("./train/b.j"), OUT),
    "an empty part": (renamed("train//b.jp"), OUT),
    "an absolute name": (renamed("/etc/passwd"), "is an absolute name"),
    "a drive letter": (renamed("C:/evil.jpg"), "is an absolute name"),
    "backslashes": (renamed("..\\..\\evil."), "has a backslash"),
    "a NUL": (renamed(b"a.jpg\0.html"), "is not a plain name"),
    "a line feed": (renamed("train\nb.jpg"), "is not a plain name"),
    "an escape sequence": (renamed("train/\x1b[2Jb"), "is not a plain name"),
    "text from right to left": (zip_of([("train/a\u202egpj.exe", b"1")]), "is not a plain name"),
    "no name": (zip_of([(member(""), b"1")]), "is not a plain name"),
    "a name that a NUL begins": (renamed(b"\0rain/b.jpg"), "is not a plain name"),
    "a name that is no UTF-8": (zip_of({"\u00e9": b"1"}).replace("\u00e9".encode(), b"\xe9\xe9"), CUT),
    "a name of 300 bytes": (zip_of([("train/" + "x" * 300, b"1")]), "more than 255 bytes"),
    "a path of 3,000 bytes": (zip_of([("x" * 99 + "/" + "yyyy/" * 600 + "z", b"1")]), "more than 255 bytes"),
    "a symlink": (zip_of([(member(mode=stat.S_IFLNK | 0o777), b"/etc/passwd")]), "is a link or a device"),
    "a pipe": (zip_of([(member(mode=stat.S_IFIFO), b"")]), "is a link or a device"),
    "a device": (zip_of([(member(mode=stat.S_IFCHR), b"")]), "is a link or a device"),
    "encrypted": (patched(*FLAG_BITS, 1), "is encrypted"),
    "strongly encrypted": (patched(*FLAG_BITS, 0x40), "is encrypted"),
    "one name twice": (renamed("train/a.jpg"), "comes twice"),
    "differing in case": (renamed("train/A.JPG"), "differs from 'train/a.jpg' only in case"),
    "folders differing in case": (renamed("TRAIN/b.jpg"), "differs from 'train' only in case"),
    "accents in two ways": (zip_of([("caf\u00e9.jpg", b"1"), ("cafe\u0301.jpg", b"1")]), "how accents are written"),
    "a file and a folder": (zip_of([("train", b"1"), ("train/b.jpg", b"1")]), "a file and a folder at once"),
    "a folder and a file": (zip_of([("train/b.jpg", b"1"), ("train", b"1")]), "a file and a folder at once"),
    "a bomb": (zip_of([("train/b.jpg", bytes(3_000_000))]), "is packed more than 200 times"),
    "overlapping files": (directory_only(50), "its files overlap"),
    "too many": (zip_of({f"{i}": b"" for i in range(60)}), "60 files in it, more than 50"),
    "too large": (zip_of({f"{i}": PHOTO for i in range(40)}), "1.6 MB unpacked, more than 1.0 MB"),
    "says it is larger": (patched(*SIZE, 50_000), "'train/b.jpg' is damaged"),
    "says it is smaller": (patched(*SIZE, 30_000), "'train/b.jpg' is damaged"),
    "says it is huge": (patched(*SIZE, 4_000_000_000), "packed more than 200 times|unpacked, more than"),
    "a wrong checksum": (patched(*CRC, 1), "'train/b.jpg' is damaged .*CRC.*get the zip again"),
    "an unknown method": (patched(*METHOD, 77), "is packed by method 77"),
    "LZMA": (zip_of(USUAL, zipfile.ZIP_LZMA), "is packed by method 14; make a zip of the usual kind"),
    "a header elsewhere": (patched(*LOCAL, 7), "'train/b.jpg' is damaged"),
    "a header after the end": (patched(*LOCAL, 10**8), "'train/b.jpg' is damaged|cut off or damaged"),
    "another name at the file": (GOOD.replace(b"train/a.jpg", b"train/b.jpg", 1), "'train/a.jpg' is damaged"),
    "broken data": (GOOD.replace(PHOTO[100:110], bytes(10)), "'train/a.jpg' is damaged"),
    "cut in the middle": (GOOD[:20_000], CUT),
    "cut at the end": (GOOD[:-5], CUT),
    "a directory elsewhere": (GOOD[:-10] + struct.pack("<IIH", 9, 10**9, 0), CUT),
    "nothing but an end": (zip_of({}), "no file is in it"),
    "only folders": (zip_of({"train/": b""}), "no file is in it"),
    "empty": (b"", NO_ZIP + "empty"),
    "a web page": (b"\n<!DOCTYPE html><html>", NO_ZIP + "a web page"),
    "JSON": (b'{"error": 1}', NO_ZIP + "JSON"),
    "a gzip file": (b"\x1f\x8b" + bytes(90), NO_ZIP + "a gzip file"),
    "noise": (bytes(range(100, 200)), NO_ZIP + "something else"),
}


@pytest.mark.fault("zips", REFUSED)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_zip_is_refused_and_leaves_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 50)
    monkeypatch.setattr(unpack, "MOST_BYTES", 1_000_000 if name == "too large" else 10**10)
    data, message = HOSTILE[name]
    path, folder = tmp_path / "in" / "the.zip", tmp_path / "in" / "deep" / "data"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as failure:
        unpack_zip(path, folder)
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 900
    assert contents(tmp_path) == {"in/the.zip": data}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_there_stays_when_it_was_to_be_replaced(tmp_path, monkeypatch, name):
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 50)
    monkeypatch.setattr(unpack, "MOST_BYTES", 1_000_000)
    (tmp_path / "the.zip").write_bytes(HOSTILE[name][0])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").write_text("kept")
    with pytest.raises(DataError):
        unpack_zip(tmp_path / "the.zip", tmp_path / "data", replace=True)
    assert set(contents(tmp_path)) == {"the.zip", "data/kept"}


@pytest.mark.fault("zips", REFUSED)
def test_whatever_byte_is_wrong_it_is_an_error_or_no_matter(tmp_path, record_property):
    choose, n_refused = random.Random(0), 0
    small = zip_of(USUAL | {"train/a.jpg": b"photo" * 9})
    for number in range(600):
        data = bytearray(small)
        for _ in range(choose.choice((1, 1, 3))):
            data[choose.randrange(len(data))] = choose.randrange(256)
        path, folder = tmp_path / "the.zip", tmp_path / f"{number}"
        path.write_bytes(data)
        try:
            unpack_zip(path, folder)
        except DataError:
            n_refused += 1
            assert not folder.exists()
        else:
            assert sum(map(len, contents(folder).values())) >= 45
    assert not [p.name for p in tmp_path.iterdir() if p.name[0] == "."]
    record_property("tally", [REFUSED, n_refused])
    record_property("tally", [READ, 600 - n_refused])


def write(path, members, **options):
    path.write_bytes(zip_of(members, **options))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_usual_zip_comes_out_byte_by_byte(tmp_path, method):
    path = write(tmp_path / "the.zip", USUAL, compression=method)
    counts = unpack_zip(path, tmp_path / "new" / "data")
    assert contents(tmp_path / "new" / "data") == USUAL
    assert counts == {"files": 3, "bytes": 100 + 40_000 + 1}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["data"]


@pytest.mark.fault("zips", READ)
def test_names_in_other_scripts_spaces_and_a_mac(tmp_path):
    members = {"train/Wand 1 – Riß.jpg": b"1", "train/壁.jpg": b"2", "train/.hidden": b"3"}
    path = write(tmp_path / "the.zip", members | {"__MACOSX/train/._壁.jpg": b"4"})
    unpack_zip(path, tmp_path / "data")
    assert contents(tmp_path / "data") == members


@pytest.mark.fault("zips", READ)
def test_rights_and_times_in_the_zip_do_not_come_along(tmp_path):
    info = member(mode=stat.S_IFREG | stat.S_ISUID | 0o777)
    unpack_zip(write(tmp_path / "the.zip", [(info, b"1")]), tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data/train/b.jpg").stat().st_mode) & 0o6111 == 0


@pytest.mark.fault("zips", READ)
def test_a_zip_in_a_zip_stays_one(tmp_path):
    bomb = zip_of({"b": bytes(3_000_000)})
    unpack_zip(write(tmp_path / "the.zip", {"inner.zip": bomb}), tmp_path / "data")
    assert contents(tmp_path / "data") == {"inner.zip": bomb}


@pytest.mark.fault("zips", READ)
def test_what_shrinks_as_annotations_do_is_no_bomb(tmp_path):
    text = b'{"segmentation": [[1.5, 2.5, 3.5, 4.5]], "iscrowd": 0},' * 60_000
    unpack_zip(write(tmp_path / "the.zip", {"train/a": text[:30_000] + PHOTO}), tmp_path / "data")
    unpack_zip(write(tmp_path / "small.zip", {"train/a": bytes(900_000)}), tmp_path / "small")


def test_the_one_folder_of_the_targets_name_is_the_target(tmp_path):
    inside = {f"cracks.coco/{name}": content for name, content in USUAL.items()}
    path = write(tmp_path / "the.zip", inside)
    assert top_folder(path) == "cracks.coco"
    unpack_zip(path, tmp_path / "cracks.coco")
    assert contents(tmp_path / "cracks.coco") == USUAL
    unpack_zip(path, tmp_path / "other")
    assert contents(tmp_path / "other") == inside
    assert same_files(path, tmp_path / "cracks.coco") and same_files(path, tmp_path / "other")


@pytest.mark.parametrize(
    ("names", "top"),
    [
        (["a/x", "a/b/y"], "a"),
        (["a/x", "b/y"], None),
        (["a/x", "y"], None),
        (["train/x"], None),
        (["a/x", "ab/y"], None),
    ],
)
def test_the_top_folder(tmp_path, names, top):
    assert top_folder(write(tmp_path / "the.zip", dict.fromkeys(names, b"1"))) == top


def test_same_files_sees_every_difference(tmp_path):
    path = write(tmp_path / "the.zip", USUAL)
    unpack_zip(path, tmp_path / "data")
    assert same_files(path, tmp_path / "data")
    (tmp_path / "data" / "more").touch()
    assert not same_files(path, tmp_path / "data")
    (tmp_path / "data" / "more").unlink()
    (tmp_path / "data" / "test" / "a.jpg").write_bytes(b"22")
    assert not same_files(path, tmp_path / "data")


def test_what_exists_is_replaced_only_if_told(tmp_path):
    path = write(tmp_path / "the.zip", USUAL)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="data: is there already, the.zip is not unpacked over it") as failure:
        unpack_zip(path, tmp_path / "data")
    assert "\n" not in str(failure.value)
    unpack_zip(path, tmp_path / "data", replace=True)
    assert contents(tmp_path / "data") == USUAL


@pytest.mark.fault("full disk", REFUSED)
def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 30_000))
    monkeypatch.setattr(unpack, "whole_folder", lambda _: pytest.fail("written"))
    with pytest.raises(DataError, match="unpacking needs 0.1 MB in .*, 0.0 MB are free; make room there"):
        unpack_zip(write(tmp_path / "the.zip", USUAL), tmp_path / "data")


@pytest.mark.fault("full disk", REFUSED)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing(tmp_path, monkeypatch, code):
    def full(source, out, _):
        out.write(source.read(10))
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    path = write(tmp_path / "the.zip", USUAL)
    with pytest.raises(DataError, match="unpacking needs 0.1 MB in .* are free; make room there"):
        unpack_zip(path, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [path]


def test_another_error_of_the_disk_is_not_called_full(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "copyfileobj", broken)
    path = write(tmp_path / "the.zip", USUAL)
    with pytest.raises(OSError, match="Input/output error"):
        unpack_zip(path, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".partial-{process}-data").mkdir()
    unpack_zip(write(tmp_path / "the.zip", USUAL), tmp_path / "data")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".partial-{os.getppid()}-data", "data", "the.zip"]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf <html", "a web page (HTML)"),
        (b"[1", "JSON"),
        (b"\x89PNG", "a PNG"),
        (b"x", "something"),
    ],
)
def test_what_a_file_is_by_its_first_bytes(start, kind):
    assert kind_of(start).startswith(kind)
