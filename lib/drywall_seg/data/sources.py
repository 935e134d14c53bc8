"""Which zip an unpacked folder came from: `<folder>.source.json` beside it."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drywall_seg.config import resolve_path
from drywall_seg.data.coco import DataError
from drywall_seg.data.unpack import same_files, unpack_zip
from drywall_seg.runs import hash_file, read_object, write_json

RAW = "data/raw"
"""Of the project: for zips from where nothing can be written."""


def unpack_local(data_root: str) -> Path:
    """Returns the folder that a zip is unpacked to, relative if the zip is; anything else as it is.

    Raises:
        DataError: If a zip is not there or cannot be used, or its folder is there with something else in it.
    """
    path = resolve_path(data_root)
    if path.suffix.lower() != ".zip" or path.is_dir():
        if path.is_file():
            raise DataError(f"{path}: neither a folder nor a .zip")
        return Path(data_root)
    if not path.is_file():
        raise DataError(f"{path}: no such zip")
    folder = Path(data_root).with_suffix("")
    if not os.access(path.parent, os.W_OK):
        folder = Path(RAW) / folder.name
    install(path, resolve_path(folder), f"zip:{path.name}", path.name)
    return folder


def install(archive: Path, folder: Path, source: str, address: str) -> Path:
    """Unpacks a zip into a folder and remembers what it was; nothing is done where the folder has just that already.

    Raises:
        DataError: If the zip cannot be used, or the folder is there and of another source. The folder stays then.
    """
    record, sha256 = read_record(folder), hash_file(archive)
    if record.get("source") == source and record["sha256"] == sha256 and is_whole(folder, record):
        return folder
    # Unpacked by hand, or by a process that was killed before it wrote the record: the same files are no other source.
    if not (folder.is_dir() and same_files(archive, folder)):
        refuse_other(folder, source)
    counts = unpack_zip(archive, folder, replace=True)
    record = {"source": source, "address": address, "sha256": sha256, "bytes": archive.stat().st_size}
    record |= {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(record_file(folder), record | {"files": counts["files"], "unpacked_bytes": counts["bytes"]})
    return folder


def find_fetched(data_root: Path, source: str) -> Path | None:
    """Returns the folder that a source was unpacked to, if it is there and whole."""
    for file in sorted(data_root.glob("*.source.json")):
        folder = file.with_name(file.name.removesuffix(".source.json"))
        record = read_record(folder)
        if record.get("source") == source and is_whole(folder, record):
            return folder
    return None


def refuse_other(folder: Path, source: str) -> None:
    """Refuses to write over what did not come from a source.

    Raises:
        DataError: If the folder is there, with something in it that is not known to be of this source.
    """
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and read_record(folder).get("source") != source:
        raise DataError(f"{folder}: is there already and not from {source}; give another data_root, or remove it")


def is_whole(folder: Path, record: dict[str, Any]) -> bool:
    """Says whether a folder holds at least what was unpacked to it; a person may have added files."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return len(sizes) >= record["files"] and sum(sizes) >= record["unpacked_bytes"]


def record_file(folder: Path) -> Path:
    """Returns where it is remembered what a folder was unpacked from."""
    return folder.with_name(f"{folder.name}.source.json")


def read_record(folder: Path) -> dict[str, Any]:
    """Returns what a folder was unpacked from, empty where that is not known."""
    try:
        record = read_object(record_file(folder))
    except (FileNotFoundError, ValueError):  # not ours, or somebody's edit
        return {}
    kinds = {"files": int, "unpacked_bytes": int, "sha256": str}
    return record if all(isinstance(record.get(name), kind) for name, kind in kinds.items()) else {}
