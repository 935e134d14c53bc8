"""Weights and settings as files: safetensors and JSON; nothing here ever unpickles."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from safetensors.torch import load_file
from torch import Tensor, nn

from drywall_seg.runs import read_json, whole_file

SETTINGS = "segmenter.json"
WEIGHTS = "model.safetensors"
PHOTOGRAPHS = "photographs.json"


def save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes safetensors as their own function does, whose error is none of the disk's kind.

    Raises:
        OSError: If the disk is full, or fails.
    """
    try:
        safetensors_torch.save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def write_weights(module: nn.Module, path: Path) -> None:
    """Writes a module's state, whole or not at all; the bytes depend on names, types and values alone."""
    state = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    with whole_file(path) as partial:
        save_file(state, partial)


def read_weights(module: nn.Module, path: Path) -> None:
    """Loads what `write_weights` wrote; the module stays as it was where that fails.

    Raises:
        ValueError: If the file is missing, truncated, no safetensors, or not this module's; it is named.
    """
    try:
        state = load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from error
    if problem := misfit(state, module.state_dict()):
        raise ValueError(f"{path}: not the weights of this model: {problem}")
    module.load_state_dict(state)


def hash_weights(*modules: nn.Module) -> str:
    """Returns 32 hexadecimal digits that stand for the names, types, shapes and values of modules' weights."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def misfit(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Says in one line where two states differ in names or shapes; empty where they do not."""
    kinds = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unknown": sorted(state.keys() - wanted.keys()),
        "of another shape": sorted(n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape),
    }
    return ", ".join(f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names)


def read_settings(folder: Path, *keys: str) -> dict[str, Any]:
    """Reads a checkpoint's settings.

    Raises:
        ValueError: If the file is missing, no JSON object, or lacks one of the keys; it is named.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    settings = read_json(path)
    if missing := [key for key in keys if not isinstance(settings, dict) or key not in settings]:
        raise ValueError(f"{path}: says nothing of {', '.join(missing)}")
    return settings


def read_photographs(folder: Path) -> frozenset[str]:
    """Returns the hashes of the photographs that a checkpoint was trained on; empty where it names none.

    Raises:
        ValueError: If the file is not a JSON list of texts; it is named.
    """
    path = folder / PHOTOGRAPHS
    names = read_json(path) if path.is_file() else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: not a list of hashes, but {names!r:.80}")
    return frozenset(names)


@contextmanager
def licence_explained(name: str) -> Iterator[None]:
    """Says what to do where a hub gives weights only to those who agreed to their licence.

    Raises:
        OSError: The hub's, or for such weights one that says how to get them.
    """
    try:
        yield
    except OSError as error:
        if re.search(r"gated|\b40[13]\b", str(error)):
            raise OSError(
                f"{name}: its weights are given only to those who agree to their licence: do so on the model's page, "
                "then log in (`hf auth login`, or the token in HF_TOKEN)"
            ) from error
        raise
