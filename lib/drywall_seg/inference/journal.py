"""What has been predicted into a folder: a line for each photo, so that a stopped run goes on where it was."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from drywall_seg.runs import hash_file, is_address, named_disk_errors, whole_file

COLUMNS = ["photo", "prompt", "mask", "presence", "area_share", "doubt", "threshold", "seconds", "warnings"]
FOLDER = ".predictions"
PHOTOS_A_PART = 16
"""An address cannot be appended to: there a file is written after so many photos, and as many are done again."""

Record = dict[str, Any]
"""A row of the table; its private keys: `settings` it was made with, `source` state of the photo, `files` written."""


def source_state(photo: str) -> list[int]:
    """Returns a photo's size in bytes and time of change, by which a changed one is told; only the size of an address.

    Raises:
        OSError: If it is not there.
    """
    if is_address(photo):
        file_system, path = fsspec.url_to_fs(photo)
        return [file_system.size(path)]
    state = os.stat(photo)
    return [state.st_size, state.st_mtime_ns]


_KINDS = {"photo": str, "prompt": str, "mask": str}
_KINDS_OF_A_MASK = {"settings": str, "source": list, "named": list, "files": dict}


class Journal:
    """The lines of all runs into one folder, and this run's own file, to which it adds."""

    def __init__(self, out: str) -> None:
        """Reads what earlier runs wrote; a line that a killed one left unfinished, or of anything else, is none."""
        self.out = out
        self._records: dict[tuple[str, str], str] = {}  # as text, a quarter of what objects would take
        self._file_system, root = fsspec.url_to_fs(f"{out}/{FOLDER}")
        parts = sorted(self._file_system.find(root)) if self._file_system.exists(root) else []
        for part in parts:
            for line in self._file_system.cat_file(part).decode("utf-8", "replace").split("\n"):
                if (record := _record_of(line)) is not None:
                    self._note(record, line)
        self._number, self._waiting = len(parts), []

    def _note(self, record: Record, line: str) -> None:
        self._records.pop((record["photo"], ""), None)  # it was broken, and is no more
        self._records[record["photo"], record["prompt"]] = line

    def add(self, records: list[Record]) -> None:
        """Adds a photo's records."""
        lines = [json.dumps(record) for record in records]  # ASCII, since a name may hold half a character
        for record, line in zip(records, lines, strict=True):
            self._note(record, line)
        self._waiting.append("".join(f"{line}\n" for line in lines))
        if not is_address(self.out):
            path = Path(self.out, FOLDER, f"{self._number:06d}.jsonl")
            path.parent.mkdir(parents=True, exist_ok=True)
            with named_disk_errors(path), open(path, "a", encoding="utf-8") as file:
                file.write(self._waiting.pop())
        elif len(self._waiting) >= PHOTOS_A_PART:
            self.flush()

    def flush(self) -> None:
        """Writes what waits for an address."""
        if self._waiting:
            with whole_file(f"{self.out}/{FOLDER}/{self._number:06d}.jsonl") as partial:
                partial.write_text("".join(self._waiting), encoding="utf-8")
            self._number, self._waiting = self._number + 1, []

    def stems(self) -> Iterator[tuple[str, str, str]]:
        """Yields photo, folder below `out` and stem of each that has a mask, so that a later run names it alike."""
        for record in map(json.loads, self._records.values()):
            if record["mask"]:
                yield record["photo"], *record["named"]

    def is_done(self, photo: str, prompt: str, settings: str) -> bool:
        """Says whether a photo's files are there as they were written, with these settings and from this photo."""
        record = json.loads(self._records.get((photo, prompt), "{}"))
        if not record or not record["mask"] or record["settings"] != settings:
            return False
        try:
            return record["source"] == source_state(photo) and all(map(self._is_whole, record["files"].items()))
        except OSError:
            return False

    def _is_whole(self, file: tuple[str, list]) -> bool:
        name, (size, digest) = file
        if is_address(self.out):  # reading all back would cost more than predicting it again
            file_system, path = fsspec.url_to_fs(f"{self.out}/{name}")
            return file_system.size(path) == size
        path = Path(self.out, name)
        return path.stat().st_size == size and hash_file(path) == digest

    def table(self, keys: Iterable[tuple[str, str]] | None = None) -> pd.DataFrame:
        """Returns the rows of these photos and prompts, or all, with `COLUMNS`; a broken photo has a warning alone."""
        lines = self._records.values() if keys is None else [self._records[key] for key in keys if key in self._records]
        rows = (
            {**record, "mask": record["mask"] and f"{self.out}/{record['mask']}"} for record in map(json.loads, lines)
        )
        return pd.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], columns=COLUMNS)


def _record_of(line: str) -> Record | None:
    """Returns the record that a line holds; None where it is not one that `add` can have written."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    kinds = _KINDS | (_KINDS_OF_A_MASK if record.get("mask") else {})
    if not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
        return None
    pairs = [record["named"], *record["files"].values()] if record["mask"] else []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    stem = pairs[0][1] if pairs else ""
    return record if isinstance(stem, str) and "/" not in stem else None  # what is written by it stays in its folder
