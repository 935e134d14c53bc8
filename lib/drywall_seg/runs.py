"""Run folders, and files that appear whole or not at all."""

import csv
import errno
import fcntl
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from tqdm import tqdm

# Where pyarrow happens to be installed pandas would keep text in its memory, which took twice as much for 10,000 rows.
pd.options.mode.string_storage = "python"

CHECKPOINT = "checkpoint"

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write says of its disk, without a word on which file it was."""

LONGEST_NAME = 200
"""Bytes in a run's name: some letters take four, and the usual file systems take 255."""

PACKAGES = ("drywall-seg", "torch", "transformers", "numpy", "pandas", "pillow", "pycocotools", "papermill")


class NotebookError(RuntimeError):
    """A notebook that cannot be run, or failed; the message says which, where and why."""


def is_address(path: str | os.PathLike) -> bool:
    """Says whether a path is an address for fsspec, such as `s3://bucket/folder`."""
    return "://" in str(path)


def is_path(text: str) -> bool:
    """Says whether a text can be a path at all, and be written down: no NUL, and no half of a character.

    A shell hands on bytes that are no UTF-8 as such halves.
    """
    return text != "" and "\0" not in text and text.encode(errors="replace").decode() == text


@contextmanager
def named_disk_errors(path: str | os.PathLike) -> Iterator[None]:
    """Puts the file's name into an error of the disk that names none."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; renames it into place, or removes it on an error.

    The temporary name keeps the suffix, since Pillow and pandas choose the format by it. What goes to an address is
    written here first, and put there in one piece.
    """
    if is_address(path):
        import fsspec

        file_system, target = fsspec.url_to_fs(str(path))
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder, Path(target).name)
            yield partial
            file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
            file_system.put_file(str(partial), target)
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with named_disk_errors(path):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Like `whole_file` for a folder, which replaces an existing one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    old = path.with_name(f".old-{os.getpid()}-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def single_writer(folder: Path) -> Iterator[None]:
    """Holds a run's folder for this process alone, and clears what a killed one left half written in it.

    The lock goes with the process, however it ends; `flock` would stay with its orphaned children.

    Raises:
        ValueError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(f"{folder}: another process is writing this run; give another run_name") from error
        except OSError as error:  # a file system without locks, as some mounted ones are
            tqdm.write(f"{folder}: cannot be locked ({error}); do not start this run twice at once")
        for old in folder.glob(".old-*"):  # killed between the two renames: what was there is all there is
            if not (whole := folder / old.name.split("-", 2)[2]).exists():
                os.replace(old, whole)
        for left in (*folder.glob(".partial-*"), *folder.glob(f"{CHECKPOINT}/.partial-*"), *folder.glob(".old-*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def hash_file(path: str | os.PathLike) -> str:
    """Returns the sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: If it is not JSON; the message names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON or no UTF-8, or a number or nesting beyond Python's limits
        raise ValueError(f"{path}: not JSON ({error})") from error


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        ValueError: If it is not JSON or something else; the message names the file.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object, but {value!r:.80}")
    return value


def write_csv(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Writes a table without its index, whole or not at all; what is no character is written as its number."""
    cells = map(str, table.select_dtypes(exclude="number").to_numpy().ravel())
    quoting = csv.QUOTE_NONNUMERIC if any("\r" in cell for cell in cells) else csv.QUOTE_MINIMAL  # which overlooks it
    with whole_file(path) as partial:
        table.to_csv(partial, index=False, errors="backslashreplace", quoting=quoting)


def write_mask(path: str | os.PathLike, mask) -> None:
    """Writes uint8 (H, W), values {0, 255}, as a one-channel PNG, whole or not at all."""
    with whole_file(path) as partial:
        Image.fromarray(mask).save(partial, format="PNG", optimize=False)


def run_folder(outputs_root: str | os.PathLike, run_name: str) -> Path:
    """Returns the folder of a run, without making it.

    Raises:
        ValueError: If the name is not a plain folder name (letters, digits, dot, dash, underscore), or a long one.
    """
    if not re.fullmatch(r"[\w-][\w.-]{0,99}", run_name) or len(run_name.encode()) > LONGEST_NAME:
        raise ValueError(f"run_name {run_name!r} must be a folder name: up to 100 letters, digits, '.', '-' and '_'")
    return Path(outputs_root) / run_name


def environment(device: str, fingerprint: str) -> dict[str, Any]:
    """Returns what a result depends on besides its settings: versions, device, commit and data."""
    try:  # of the library's own repository, whatever folder one stands in
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        commit = ""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "git_commit": commit or None,
        "data_fingerprint": fingerprint,
    }


def progress(items: Iterable | None, desc: str, unit: str, total: int | None = None) -> tqdm:
    """Shows a bar with the time left; a bar within a bar goes when it is done.

    Off a terminal it is redrawn seldom: an executed notebook keeps every redraw. Of several processes the first shows.
    """
    return tqdm(
        items,
        desc=desc,
        unit=unit,
        total=total,
        mininterval=0.5 if sys.stderr.isatty() else 5,
        leave=None,
        disable=os.environ.get("RANK", "0") != "0",
    )


def one_ahead(function: Callable[[Any], Any], items: Iterable) -> Iterator[tuple[Any, Any]]:
    """Yields each item with what a function gives for it, in order; the next is worked on meanwhile, in a thread."""
    left = iter(items)
    with ThreadPoolExecutor(1) as thread:
        ahead = [(item, thread.submit(function, item)) for item in itertools.islice(left, 1)]
        while ahead:
            item, future = ahead.pop()
            result = future.result()
            ahead = [(following, thread.submit(function, following)) for following in itertools.islice(left, 1)]
            yield item, result
            del result, future  # a photo may be large: it goes before the next is waited for
