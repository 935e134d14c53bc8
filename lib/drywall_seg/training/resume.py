"""The state of a training, stored so that it goes on after the machine has gone away."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from drywall_seg.models.weights import save_file
from drywall_seg.runs import hash_file, named_disk_errors

FOLDER = "resume"
KEPT = 2
"""States that are kept: where the last one turns out broken, the one before is used."""


def save_state(folder: Path, step: int, tensors: dict[str, Tensor], info: dict[str, Any]) -> Path:
    """Writes a state into `folder/resume`, whole or not at all, removes those before the last two, and returns it.

    One file holds everything, tensors by name and `info` as JSON, and its name the step and its own hash: one that was
    cut or changed, as on a Drive, is found.
    """
    where = folder / FOLDER
    where.mkdir(parents=True, exist_ok=True)
    partial = where / f".partial-{os.getpid()}-state"
    try:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        with named_disk_errors(where):
            save_file(contiguous, partial, metadata={"info": json.dumps(info)})
        path = where / f"step-{step:08d}-{_hash(partial)}.safetensors"
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for old in _states(folder)[KEPT:]:
        old.unlink()
    return path


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Returns the tensors and the info of the newest state that is whole; None where there is none.

    A broken one is named and removed, so that it never counts as one of the two that are kept.

    Raises:
        OSError: If one cannot be read at all; it stays.
    """
    for left in (folder / FOLDER).glob(".partial-*"):
        left.unlink()
    for path in _states(folder):
        if path.stem.rpartition("-")[2] == _hash(path):
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
                return tensors, json.loads(file.metadata()["info"])
        tqdm.write(f"{path} is broken: not what its name says; training goes on from the state before it")
        path.unlink()
    return None


def _states(folder: Path) -> list[Path]:
    """Returns the files of states, newest first."""
    return sorted((folder / FOLDER).glob("step-*.safetensors"), reverse=True)


def _hash(path: Path) -> str:
    return hash_file(path)[:32]
