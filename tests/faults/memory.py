"""Trains a tiny CLIPSeg's decoder on stored activations, and prints the most anonymous memory that its steps took.

`python -m tests.faults.memory DATA_ROOT FOLDER N_ROWS`. Anonymous memory alone: pages of a mapped file count as
resident too, but go whenever the system wants them.
"""

import sys
from pathlib import Path

import pandas as pd

from drywall_seg.data.manifest import build_manifest
from drywall_seg.models import load_segmenter
from drywall_seg.training import feature_cache, loop
from drywall_seg.training.feature_cache import entry_file, open_store, stored_features
from drywall_seg.training.fit import fit, training_data
from drywall_seg.training.optimisation import parameter_groups
from tests.training.runs import config_of


def anonymous_memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def many_rows(manifest, n_rows):
    """The manifest with so many images in train, each of its own name, and four in val."""
    cracks = manifest.table[manifest.table.label == "crack"]
    train = pd.concat([cracks] * (n_rows // len(cracks) + 1), ignore_index=True).head(n_rows)
    train = train.assign(split="train", image_id=[f"{name}-{i}" for i, name in enumerate(train.image_id)])
    table = pd.concat([train, cracks.head(4).assign(split="val")], ignore_index=True)
    return type(manifest)(table, manifest.data_root, manifest.folder, manifest.info)


def main(data_root, folder, n_rows):
    manifest = many_rows(build_manifest(Path(data_root), folder / "processed"), n_rows)
    config = config_of(model=str(folder / "tiny"), epochs=1, batch_size=16, stored_views=1, crop_min=1.0)
    segmenter = load_segmenter(config.model, 64)
    parameter_groups(segmenter, config)
    data = training_data(segmenter, manifest, config)
    store = open_store(segmenter, data)
    views = [(image_id, 0) for image_id in data.by_image]
    stored_features(store, segmenter, data, views[:1])
    entry = entry_file(store, data, *views[0]).read_bytes()  # what it says does not matter here, that it is whole does
    for view in views[1:]:
        path = entry_file(store, data, *view)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(entry)
    feature_cache._encode = lambda *_: sys.exit("encoded, and not read")
    taken, step = [], loop.optimiser_step

    def watched(*arguments):
        loss = step(*arguments)
        taken.append(anonymous_memory())
        return loss

    loop.optimiser_step = watched
    fit(segmenter, manifest, config, folder / f"run-{n_rows}")
    print(len(taken), max(taken))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
