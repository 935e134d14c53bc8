"""The models behind one interface, `Segmenter`; `load_segmenter` finds the right one."""

import re
from pathlib import Path

import torch

from drywall_seg.models.base import Segmenter
from drywall_seg.models.weights import SETTINGS, licence_explained, read_photographs, read_settings
from drywall_seg.runs import CHECKPOINT, read_object

__all__ = ["Segmenter", "load_segmenter"]

COMPACT = Path(__file__).parent / "compact_weights"
"""The checkpoint that ships with the package."""


def checkpoint_folder(name_or_dir: str | Path) -> Path:
    """Returns where a model's files are: the shipped ones for `compact`, else the path itself (or a hub id)."""
    return COMPACT if str(name_or_dir) == "compact" else Path(name_or_dir)


def load_segmenter(name_or_dir: str | Path, image_size: int | None = None) -> Segmenter:
    """Loads a model in evaluation mode, on the CPU.

    Args:
        name_or_dir: `compact`, a folder that `Segmenter.save` wrote, a folder laid out as a hub's CLIPSeg or
            SAM 3, or a hub id.
        image_size: Side of the square input in pixels; None for the checkpoint's own.

    Raises:
        ValueError: If there is no such folder, it holds no model that is known, or its files are damaged.
        OSError: If a hub id cannot be found or downloaded (as transformers says it).
    """
    folder = checkpoint_folder(name_or_dir)
    try:
        segmenter = _load(folder, name_or_dir, image_size)
        segmenter.trained_on = read_photographs(folder)
        for name, tensor in segmenter.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{folder}: its weight {name} holds what is no finite number")
        return segmenter.eval()
    except (OSError, ImportError):
        raise
    except Exception as error:  # whatever transformers and tokenizers raise over files of nonsense
        if isinstance(error, ValueError) and str(folder) in str(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{folder}: cannot be loaded ({reason})") from error


def _load(folder: Path, name_or_dir: str | Path, image_size: int | None) -> Segmenter:
    if (folder / SETTINGS).is_file():
        return _load_saved(folder, image_size)
    if (folder / CHECKPOINT / SETTINGS).is_file():
        raise ValueError(f"{folder}: a run's folder; its model is in {folder / CHECKPOINT}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: holds neither {SETTINGS} (ours) nor config.json (a hub's)")
    if not folder.is_dir() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name_or_dir)):
        raise ValueError(f"{folder}: no such folder, and not the form of a hub id; a run's is outputs/RUN/{CHECKPOINT}")
    return _load_released(str(name_or_dir), image_size)


def _load_released(name: str, image_size: int | None) -> Segmenter:
    from transformers.utils import cached_file

    with licence_explained(name):
        config_file = cached_file(name, "config.json")
    if str(read_object(config_file).get("model_type")).startswith("sam3"):
        from drywall_seg.models.sam3 import load_sam3

        return load_sam3(name, image_size)
    from drywall_seg.models.clipseg_files import load_clipseg

    return load_clipseg(name, image_size)


def _load_saved(folder: Path, image_size: int | None) -> Segmenter:
    architecture = read_settings(folder, "architecture")["architecture"]
    if architecture == "compact":
        from drywall_seg.models.compact import CompactSegmenter

        return CompactSegmenter.load(folder, image_size)
    if architecture == "clipseg":
        from drywall_seg.models.clipseg_files import load_finetuned

        return load_finetuned(folder, image_size)
    if architecture == "sam3":
        from drywall_seg.models.sam3 import load_sam3

        settings = read_settings(folder, "image_size", "base")
        return load_sam3(settings["base"]["name"], image_size or settings["image_size"], settings["base"]["revision"])
    raise ValueError(f"{folder / SETTINGS}: unknown architecture {architecture!r}")
