"""Zip files from elsewhere: checked whole, then unpacked whole or not at all."""

import errno
import glob
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from drywall_seg.data.coco import PARTS, DataError
from drywall_seg.runs import progress, whole_folder

# The reference exports hold 5,369 and 1,020 images, together a few hundred MB; these leave room for 30 times as much.
MOST_MEMBERS = 200_000
MOST_BYTES = 20 * 1024**3
# Photos hardly shrink and annotations 10 to 40 times; deflate can reach 1,032 times, on nothing but zeros.
MOST_RATIO = 200
RATIO_FROM = 1024**2
"""Smaller members may shrink as they like: a few dozen bytes of overhead decide their ratio."""
LONGEST_NAME = 255
"""Bytes in a name that the usual file systems take."""
BLOCK = 4096
"""Bytes that a file system keeps at least for a file."""

_STARTS = ((b"{", "JSON"), (b"[", "JSON"), (b"\x1f\x8b", "a gzip file"), (b"Rar!", "a RAR file"))
_STARTS += ((b"7z\xbc\xaf", "a 7z file"), (b"\xff\xd8", "a JPEG"), (b"\x89PNG", "a PNG"), (b"%PDF", "a PDF"))
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)


def unpack_zip(path: Path, folder: Path, replace: bool = False) -> dict[str, int]:
    """Unpacks a zip into a folder that appears whole or not at all; zips within it stay as they are.

    Where everything in it lies in one folder of the target's own name, that folder is the target. With `replace` a
    folder that is there is replaced, at the very end.

    Returns:
        How many `files`, and their `bytes`.

    Raises:
        DataError: If it is no whole zip, a member is not what a data set holds (the message names it), it is empty,
            the disk is too small, or the target exists. Nothing is left then.
    """
    if folder.exists() and not replace:
        raise DataError(f"{folder}: is there already, {path.name} is not unpacked over it; remove it or give another")
    with _open(path) as archive:
        files = [member for member in check_members(archive, path) if not member.is_dir()]
        strip = folder.name if _lie_in(folder.name, files) else "."
        needed = sum(member.file_size + BLOCK for member in files)
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_left(folder.parent, glob.escape(folder.name))
        if (free := shutil.disk_usage(folder.parent).free) < needed:
            raise DataError(_full(path, folder, needed, free))
        with whole_folder(folder) as partial:
            for member in progress(files, f"unpacking {path.name}", "file"):
                target = partial / PurePosixPath(member.filename).relative_to(strip)
                try:
                    _unpack_member(archive, member, target)
                except _BROKEN as error:
                    raise DataError(f"{path}: {member.filename!r} is damaged ({error}); get the zip again") from error
                except OSError as error:
                    if error.errno == errno.EINVAL:  # the directory sends zipfile to before the file's beginning
                        raise DataError(f"{path}: {member.filename!r} is damaged; get the zip again") from error
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    free = shutil.disk_usage(folder.parent).free
                    raise DataError(f"{_full(path, folder, needed, free)} ({error.strerror})") from error
    return {"files": len(files), "bytes": sum(member.file_size for member in files)}


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, open(target, "xb") as out:
        shutil.copyfileobj(source, out, 1024**2)
        if out.tell() != member.file_size:  # zipfile looks at the checksum alone
            raise zipfile.BadZipFile(f"{out.tell()} bytes instead of {member.file_size}")


def check_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """Returns the members to unpack, all checked before anything is written; a Mac's own extras are left out.

    Raises:
        DataError: If one is refused, or there are none, too many, or too many bytes.
    """
    members = [member for member in archive.infolist() if not member.orig_filename.startswith("__MACOSX/")]
    if len(members) > MOST_MEMBERS:
        raise DataError(f"{path}: {len(members)} files in it, more than {MOST_MEMBERS}")
    taken: dict[str, tuple[str, bool]] = {}  # every file and folder so far: its name as written, whether it is a file
    for member in members:
        if problem := _problem(member) or _collision(member, taken):
            raise DataError(f"{path}: {member.orig_filename!r:.300} {problem}; nothing was unpacked")
    if all(member.is_dir() for member in members):
        raise DataError(f"{path}: no file is in it")
    if (total := sum(member.file_size for member in members)) > MOST_BYTES:
        raise DataError(f"{path}: {in_words(total)} unpacked, more than {in_words(MOST_BYTES)}")
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise DataError(f"{path}: its files overlap, as only a zip bomb's do; nothing was unpacked")
    return members


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Says what is wrong with a member by itself; its name is the one written, which zipfile cuts at a NUL."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if not name or not name.isprintable():
        return "is not a plain name"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "is an absolute name"
    if "\\" in name:
        return "has a backslash in its name"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder or is not a plain name"
    if any(len(part.encode()) > LONGEST_NAME for part in parts) or len(name.encode()) > 2048:
        return f"is a name of more than {LONGEST_NAME} bytes"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & 0x2041:  # a password, strong encryption, hidden headers
        return "is encrypted; make a zip without a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for GB of memory
        return f"is packed by method {member.compress_type}; make a zip of the usual kind (deflate)"
    if member.file_size > max(RATIO_FROM, MOST_RATIO * member.compress_size):
        return f"is packed more than {MOST_RATIO} times, as a zip bomb is"
    return None


def _collision(member: zipfile.ZipInfo, taken: dict[str, tuple[str, bool]]) -> str | None:
    """Says whether a member would write over another one, on a file system that ignores case and accents too."""
    parts = member.orig_filename.removesuffix("/").split("/")
    for end in range(1, len(parts) + 1):
        prefix, is_file = "/".join(parts[:end]), end == len(parts) and not member.is_dir()
        key = unicodedata.normalize("NFC", prefix).casefold()
        other, other_is_file = taken.get(key, (None, False))
        if other is None:
            taken[key] = prefix, is_file
        elif other != prefix:
            return f"differs from {other!r:.300} only in case or in how accents are written"
        elif is_file or other_is_file:
            return "comes twice, or is a file and a folder at once"
    return None


def top_folder(path: Path) -> str | None:
    """Returns the one folder that everything in a zip lies in; None where there is none, or it is a part itself.

    Raises:
        DataError: If it is no whole zip, or a member is refused.
    """
    with _open(path) as archive:
        members = check_members(archive, path)
    top = members[0].filename.split("/")[0]
    return top if top not in PARTS and _lie_in(top, members) else None


def same_files(path: Path, folder: Path) -> bool:
    """Says whether a folder holds what a zip does, file by file and size by size, and nothing else.

    Raises:
        DataError: If it is no whole zip, or a member is refused.
    """
    with _open(path) as archive:
        members = [member for member in check_members(archive, path) if not member.is_dir()]
    strip = folder.name if _lie_in(folder.name, members) else "."
    wanted = {str(PurePosixPath(m.filename).relative_to(strip)): m.file_size for m in members}
    return wanted == {str(f.relative_to(folder)): f.stat().st_size for f in folder.rglob("*") if f.is_file()}


def _lie_in(top: str, members: list[zipfile.ZipInfo]) -> bool:
    return all(member.filename.startswith(f"{top}/") for member in members)


def kind_of(start: bytes) -> str:
    """Says what a file is by its first bytes.

    >>> kind_of(b"<!DOCTYPE html>")
    'a web page (HTML)'
    """
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text.startswith(b"<"):
        return "a web page (HTML)"
    return next((kind for begin, kind in _STARTS if text.startswith(begin)), "something else" if start else "empty")


def in_words(n_bytes: int) -> str:
    """Writes a number of bytes as MB or GB.

    >>> in_words(2_500_000)
    '2.5 MB'
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _open(path: Path) -> zipfile.ZipFile:
    with open(path, "rb") as file:
        start = file.read(64)
    try:
        return zipfile.ZipFile(path)
    except (*_BROKEN, OSError) as error:
        if start.startswith(b"PK"):
            raise DataError(f"{path}: a zip that is cut off or damaged ({error}); get it again") from error
        raise DataError(f"{path}: not a zip, but {kind_of(start)}") from error


def _full(path: Path, folder: Path, needed: int, free: int) -> str:
    return f"{path}: unpacking needs {in_words(needed)} in {folder.parent}, {in_words(free)} are free; make room there"


def clear_left(folder: Path, name: str = "*") -> None:
    """Removes what killed processes left half written in a folder, of a name or all; a living one's stays."""
    for left in (*folder.glob(f".partial-*-{name}"), *folder.glob(f".old-*-{name}")):
        process = left.name.split("-", 2)[1]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
