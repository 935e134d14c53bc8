"""Makes a finished run of the compact model the one that ships: `python -m drywall_seg.models.ship RUN_FOLDER`."""

import shutil
import sys
from pathlib import Path

import torch

from drywall_seg.models import COMPACT, load_segmenter
from drywall_seg.models.weights import PHOTOGRAPHS, WEIGHTS, write_weights
from drywall_seg.runs import CHECKPOINT, whole_folder


def ship(run_folder: Path, target: Path = COMPACT) -> Path:
    """Writes the run's checkpoint in half precision, its thresholds, photographs, settings and history to `target`.

    Raises:
        ValueError: If a weight is too large for half precision, or the folder holds no checkpoint.
    """
    checkpoint = run_folder / CHECKPOINT
    if not (checkpoint / PHOTOGRAPHS).is_file():
        raise ValueError(f"{checkpoint / PHOTOGRAPHS}: not there; what it was trained on would be unknown")
    segmenter = load_segmenter(checkpoint)
    half = segmenter.half()
    for name, tensor in half.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{checkpoint / WEIGHTS}: {name} does not fit into half precision")
    with whole_folder(target) as partial:
        for file in sorted(checkpoint.iterdir()):
            if file.name != WEIGHTS:
                shutil.copyfile(file, partial / file.name)
        write_weights(half, partial / WEIGHTS)
        for name in ("config.json", "environment.json", "history.csv"):
            shutil.copyfile(run_folder / name, partial / name)
    return target


if __name__ == "__main__":
    print(ship(Path(sys.argv[1])))
