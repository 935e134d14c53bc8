"""Small runs for the tests of training."""

import torch
from safetensors.torch import load_file

from drywall_seg.config import resolve_config

TINY = {"image_size": 64, "train_size": 64, "batch_size": 16, "learning_rate": 2e-3}
TIMES = ["seconds", "images_per_second", "peak_memory_gb"]
"""Columns of a history that no two runs share."""


class Stop(Exception):
    """Somebody pulled the plug."""


def config_of(**settings):
    return resolve_config(**{**TINY, **settings})


def small(manifest, n=24):
    """The manifest with n rows of train and of val."""
    keep = manifest.table.groupby("split").head(n)
    return type(manifest)(keep.reset_index(drop=True), manifest.data_root, manifest.folder, manifest.info)


def weights(folder):
    return load_file(folder / "checkpoint" / "model.safetensors")


def same_weights(first, second):
    """Says whether two runs' checkpoints are equal to the bit."""
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())
