"""Activations of a frozen image encoder, stored once: half precision, memory-mapped, a file for a view of an image."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.models import Segmenter
from drywall_seg.models.base import Features
from drywall_seg.models.weights import hash_weights
from drywall_seg.runs import hash_file, whole_file

FORMAT = 1
"""Raised whenever entries are written otherwise, or `data.augment` makes other pixels of the same settings."""
MOST_VIEWS = 4
DIGEST_BYTES = 32


@dataclass(frozen=True)
class FeatureStore:
    """A folder of activations that one encoder gives for the views of one dataset's images.

    An entry's file is named by all that it depends on, so that no other one is ever taken for it, and ends with its
    content's hash, so that a damaged one is found.
    """

    folder: Path
    shapes: tuple[tuple[int, ...], ...]
    """Of one image's features, without the batch."""
    content: dict[str, str] = field(default_factory=dict)
    """Hashes of the photos' files, by image_id."""


def open_store(segmenter: Segmenter, dataset: PromptedDataset) -> FeatureStore:
    """Opens the store beside the manifest that is this encoder's and these augmentations', empty or not.

    Raises:
        ValueError: If the encoder trains, so that what it gives does not stay.
    """
    if _encoder_trains(segmenter):
        raise ValueError(f"stored_views is {dataset.stored_views}, but trainable lets the encoder train; give 0")
    settings = {
        "format": FORMAT,
        "weights": hash_weights(*segmenter.parts()["encoder"]),
        "architecture": segmenter.architecture(),
        "look": [dataset.image_size, dataset.mean, dataset.std, dataset.seed],
        "augmentation": [dataset.crop_min, dataset.color_strength, dataset.degrade_share],
    }
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    folder = dataset.manifest.folder / "features" / key
    for left in folder.rglob(".partial-*"):  # by one that was killed
        left.unlink(missing_ok=True)
    return FeatureStore(folder, feature_shapes(segmenter, dataset.image_size))


def _encoder_trains(segmenter: Segmenter) -> bool:
    return any(p.requires_grad for module in segmenter.parts()["encoder"] for p in module.parameters())


@torch.no_grad()
def feature_shapes(segmenter: Segmenter, image_size: int) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of one image's features, without the batch."""
    features = segmenter.encode_images(torch.zeros(1, 3, image_size, image_size, device=segmenter.device))
    return tuple(tuple(f.shape[1:]) for f in features)


def choose_views(segmenter: Segmenter, dataset: PromptedDataset, wanted: int | None) -> int:
    """Returns how many views of an image to store: those wanted, or as many as pay here, 4 at most.

    None are stored where any of the encoder trains, or on a GPU: on an H100 a step of CLIPSeg's decoder took 29 ms with
    the encoder run, 129 ms with what had to be read. On a CPU reading is many times as fast as encoding, so what half
    of the disk's free space holds is stored.
    """
    if wanted is not None:
        return wanted
    if _encoder_trains(segmenter) or segmenter.device.type != "cpu":
        return 0
    free = shutil.disk_usage(dataset.manifest.folder).free
    bytes_per_view = 2 * sum(map(math.prod, feature_shapes(segmenter, dataset.image_size))) * len(dataset.by_image)
    return min(MOST_VIEWS, free // 2 // max(1, bytes_per_view))


def stored_features(
    store: FeatureStore, segmenter: Segmenter, dataset: PromptedDataset, views: Iterable[tuple[str, int]]
) -> Features:
    """Returns the features of views of images, given as image_id and number; those not stored are encoded and stored.

    New ones are rounded to half precision too, so that it makes no difference which they were.

    Raises:
        ValueError: If an activation is beyond half precision's range.
    """
    entries = []
    for image_id, view in views:
        path = entry_file(store, dataset, image_id, view)
        entry = read_entry(path, store.shapes)
        if entry is None:
            entry = _encode(segmenter, dataset.pixels(image_id, view), f"{image_id}, view {view}")
            write_entry(path, entry)
        entries.append(entry)
    columns = zip(*entries, strict=True)
    return tuple(torch.stack(column).to(segmenter.device).float() for column in columns)


def entry_file(store: FeatureStore, dataset: PromptedDataset, image_id: str, view: int) -> Path:
    """Returns where a view's features are, or would be."""
    if image_id not in store.content:
        photo = dataset.manifest.image_file(dataset.by_image[image_id])
        store.content[image_id] = hash_file(photo)
    name = hashlib.sha256(f"{image_id}\n{store.content[image_id]}\n{view}".encode()).hexdigest()
    return store.folder / name[:2] / f"{name[2:34]}.f16"


def read_entry(path: Path, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...] | None:
    """Maps an entry into memory, float16; None where it is not there, of another size, or not what was written."""
    sizes = [math.prod(shape) for shape in shapes]
    try:
        if path.stat().st_size != 2 * sum(sizes) + DIGEST_BYTES:
            return None
        data = np.memmap(path, np.uint8, "c")  # never written to, but torch wants it writable
    except FileNotFoundError:
        return None
    if hashlib.blake2b(data[:-DIGEST_BYTES], digest_size=DIGEST_BYTES).digest() != data[-DIGEST_BYTES:].tobytes():
        tqdm.write(f"{path}: damaged; encoded anew")
        return None
    pieces = torch.from_numpy(data[:-DIGEST_BYTES].view(np.float16)).split(sizes)
    return tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))


def write_entry(path: Path, entry: tuple[Tensor, ...]) -> None:
    """Writes an entry, whole or not at all; where the disk is full training goes on without it."""
    data = b"".join(tensor.numpy().tobytes() for tensor in entry)
    try:
        with whole_file(path) as partial:
            partial.write_bytes(data + hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest())
    except OSError as error:
        tqdm.write(f"{path}: cannot be stored ({error}); it will be encoded again")


@torch.no_grad()
def _encode(segmenter: Segmenter, pixels: np.ndarray, name: str) -> tuple[Tensor, ...]:
    """Encodes one view, float16 without the batch.

    Alone and in full precision, so that it depends on neither what else was missing nor on the device's kind.
    """
    with torch.autocast(segmenter.device.type, enabled=False):
        features = segmenter.encode_images(torch.from_numpy(pixels)[None].to(segmenter.device))
    entry = tuple(f[0].to(torch.float16).contiguous().cpu() for f in features)
    if not all(torch.isfinite(f).all() for f in entry):
        raise ValueError(f"{name}: an activation is beyond half precision; train with stored_views 0")
    return entry
