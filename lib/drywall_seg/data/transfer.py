"""One zip from an address to disk: gone on with where it was cut, and checked."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import requests
import urllib3
from tqdm import tqdm

from drywall_seg.data.http import DownloadError, PassingError, Server, failure_of, patiently
from drywall_seg.data.unpack import MOST_BYTES, in_words, kind_of
from drywall_seg.runs import progress, read_object, write_json


def download(server: Server, url: str, target: Path) -> None:
    """Downloads a zip, to `target` when it is whole; what a cut connection left is gone on with, the next time too.

    `<target>.partial` holds what there is so far, and `<target>.partial.json` the ETag or date that the rest must
    share. Without either, or where the server ignores ranges or the file has changed, it begins anew.

    Raises:
        DownloadError: If it cannot be had; data that are there stay as they are.
    """
    partial = target.with_name(f"{target.name}.partial")
    note = partial.with_name(f"{partial.name}.json")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with _alone(partial, server.what) as file:
        try:
            patiently(lambda: _go_on(server, url, file, note), lambda: _size(file))
            os.replace(partial, target)
            note.unlink(missing_ok=True)
        finally:
            if _size(file) == 0:
                partial.unlink(missing_ok=True)
                note.unlink(missing_ok=True)


def _go_on(server: Server, url: str, file: BinaryIO, note: Path) -> None:
    """Fetches what is missing of a file, or all of it."""
    known, what = _read_note(note), server.what
    have = _size(file) if known.get("validator") else 0
    if have and have == known.get("total"):  # stopped between the last byte and the rename
        return
    headers = {"Accept-Encoding": "identity"}  # bytes on disk are to be those that ranges count
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    with server.ask(url, headers=headers) as response:
        if response.status_code == 200:
            have, total = 0, _length(response)
        elif (total := _rest(response, have, known)) is None:
            file.truncate(0)
            raise PassingError(f"{what}: the file has changed, or another part of it came than was asked for")
        file.truncate(have)
        _check_room(what, file, total, have)
        write_json(note, {"validator": _validator(response), "total": total})
        failure = _copy(response, file, total, what, url)
    size = _size(file)
    if failure is None and (size == 0 or total not in (None, size)):
        failure = PassingError(
            f"{what}: {size} of {total} bytes came; run this again" if size else f"{what}: the answer is empty"
        )
    if failure is not None:
        if not isinstance(failure, PassingError):  # nothing to go on with
            file.truncate(0)
        raise failure


def _length(response: requests.Response) -> int | None:
    """Returns the bytes that a whole file's answer announces, None where it does not, or those of packed ones."""
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if plain and length.isdecimal() else None


def _rest(response: requests.Response, have: int, known: dict[str, Any]) -> int | None:
    """Returns the whole file's bytes where an answer is the rest that was asked for, of the same version; else None."""
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if response.status_code != 206 or not have or not part:
        return None
    first, last, total = map(int, part.groups())
    fits = first == have and last == total - 1 and known.get("total") in (None, total)
    same = _validator(response) in (None, known["validator"])
    return total if fits and same and _length(response) in (None, last - first + 1) else None


def _validator(response: requests.Response) -> str | None:
    """Returns what tells one version of the file from another: its ETag, if it is a strong one, or its date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _check_room(what: str, file: BinaryIO, total: int | None, have: int) -> None:
    place = Path(file.name).parent
    if (total or 0) > MOST_BYTES:
        raise DownloadError(f"{what}: {in_words(total)}, more than {in_words(MOST_BYTES)}")
    if (free := shutil.disk_usage(place).free) < (total or 0) - have:
        raise DownloadError(f"{what}: needs {in_words(total - have)} in {place}, {in_words(free)} are free")


def _copy(response: requests.Response, file: BinaryIO, total: int | None, what: str, url: str) -> DownloadError | None:
    """Appends an answer's body to a file; returns what cut it short, if anything did."""
    size = _size(file)
    with progress(None, what, "B", total) as bar:
        bar.unit_scale, bar.n, bar.initial = True, size, size
        try:
            for chunk in response.iter_content(64 * 1024):
                if size == 0 and not b"PK".startswith(chunk[:2]):
                    return DownloadError(f"{what}: what comes is {kind_of(chunk)} and not a zip")
                if (size := size + len(chunk)) > MOST_BYTES:
                    return DownloadError(f"{what}: there is no end after {in_words(MOST_BYTES)}")
                bar.update(len(chunk))
                while chunk:  # without a buffer, which would still hold what a full disk did not take
                    chunk = chunk[file.write(chunk) :]
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return failure_of(error, url, what)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return DownloadError(f"{what}: the disk is full after {in_words(size)} of {in_words(total or size)}")
    return None


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _read_note(note: Path) -> dict[str, Any]:
    try:
        known = read_object(note)
    except (FileNotFoundError, ValueError):  # a first try, or somebody's edit
        return {}
    return known if isinstance(known.get("validator"), str) else {}


@contextmanager
def _alone(partial: Path, what: str) -> Iterator[BinaryIO]:
    """Opens a file to append to, for this process alone where the file system has locks."""
    with open(partial, "ab", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise DownloadError(f"{what}: another process is downloading it to {partial.parent}") from error
        except OSError as error:  # a mounted Drive has none
            tqdm.write(f"{partial}: cannot be locked ({error}); do not download this twice at once")
        yield file
