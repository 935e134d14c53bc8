"""What is done to raw masks before they are delivered, chosen on val, and what monitoring compares with.

A training ends with it. For a checkpoint of before: `python -m drywall_seg.evaluation.delivery compact DATA_ROOT`.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import Manifest, prepare
from drywall_seg.evaluation.breakdowns import FEW_PHOTOGRAPHS
from drywall_seg.evaluation.collect import predict_rows, unseen_rows
from drywall_seg.evaluation.intervals import bootstrap_interval
from drywall_seg.evaluation.metrics import dice
from drywall_seg.evaluation.thresholds import require_val
from drywall_seg.images import read_image
from drywall_seg.inference.monitor import FIELDS, describe_photo, make_reference
from drywall_seg.inference.postprocess import PostProcessing, postprocess
from drywall_seg.inference.predict import THRESHOLDS_FILE, Predictor
from drywall_seg.models import checkpoint_folder
from drywall_seg.runs import progress, read_json, write_json

CANDIDATES = {
    "opening": (0.0016, 0.0032, 0.0048),  # 1, 2 and 3 pixels of 640
    "closing": (0.0032, 0.0064, 0.0128),
    "join_gap": (0.03, 0.1),
    "hole_area": (0.0005, 0.002, 0.01),
    "min_area": (0.0003, 0.001, 0.003, 0.01),
}
"""What is tried for each step, in the order in which they are done."""
LINE_LABELS = ("taping_area", "joint_line")
"""Whose masks may be joined: cracks bend."""
LEAST_GAIN = 0.001
"""In mean Dice: what changes no figure that is shown to three places is not worth its time at every prediction."""
SIDE = 1600
"""Masks of larger photos are tried at a size of at most this; settings are shares, which fit any size."""


@dataclass(frozen=True)
class PackedMask:
    """A mask at a bit a pixel, since all of val's are in memory at once."""

    bits: np.ndarray
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> "PackedMask":
        """Packs uint8 (H, W), {0, 255}."""
        return cls(np.packbits(mask), mask.shape)

    def unpack(self) -> np.ndarray:
        """Returns uint8 (H, W), {0, 255}."""
        height, width = self.size_hw
        return np.unpackbits(self.bits, count=height * width).reshape(height, width) * np.uint8(255)

    def share(self) -> float:
        """Returns the share of the photo that is inside, in [0, 1]."""
        return int(np.bitwise_count(self.bits).sum()) / (self.size_hw[0] * self.size_hw[1])


def choose_delivery(predictor: Predictor, manifest: Manifest, rows: pd.DataFrame) -> dict[str, Any]:
    """Chooses what is done to the raw masks at the predictor's thresholds and presence cut, in one pass over val.

    The predictor is one without post-processing; rows are those of val to choose on.

    Returns:
        What `thresholds.json` holds besides thresholds: `presence_cut`, the predictor's; `postprocessing`, by label
        the steps that are done; `reference`, as `monitor.make_reference` makes it, of masks with these steps done.

    Raises:
        ValueError: If a row is not of val.
    """
    require_val(rows.split)
    seen = collect_masks(predictor, manifest, rows)
    chosen = {}
    for label, part in seen.groupby("label", sort=False):
        steps, delivered = choose_postprocessing(label, part["mask"], part["target"], part.photo_id.to_numpy())
        chosen[label] = {name: value for name, value in asdict(steps).items() if value}
        seen.loc[part.index, "area"] = [mask.share() for mask in delivered]
    return {"presence_cut": predictor.presence_cut, "postprocessing": chosen, "reference": make_reference(seen)}


def collect_masks(predictor: Predictor, manifest: Manifest, rows: pd.DataFrame) -> pd.DataFrame:
    """Runs the model over rows and keeps all that a choice can be made on.

    Returns:
        One row for each: label, photo_id, mask and target (both `PackedMask`), and `monitor.FIELDS`, without areas yet.
    """
    kept: list[dict[str, Any]] = []
    described: dict[str, dict[str, float]] = {}
    for row, prediction, target in predict_rows(predictor, manifest, rows):
        if row.image_id not in described:
            described[row.image_id] = describe_photo(read_image(manifest.image_file(row)))
        mask, truth = (PackedMask.of(_reduced(array)) for array in (prediction.mask, target))
        about = {"label": row.label, "photo_id": row.photo_id, "mask": mask, "target": truth}
        about |= {"presence": prediction.presence, "doubt": prediction.doubt, "area": np.nan}
        kept.append(about | described[row.image_id])
    return pd.DataFrame(kept, columns=["label", "photo_id", "mask", "target", *FIELDS])


def _reduced(mask: np.ndarray) -> np.ndarray:
    """Makes a mask (H, W) of a large photo smaller by a whole factor; a pixel is kept where half of it was inside."""
    factor = -(-max(mask.shape) // SIDE)
    return mask if factor == 1 else (np.asarray(Image.fromarray(mask).reduce(factor)) >= 128) * np.uint8(255)


def choose_postprocessing(
    label: str, masks: Sequence[PackedMask], targets: Sequence[PackedMask], photo_ids: np.ndarray
) -> tuple[PostProcessing, Sequence[PackedMask]]:
    """Chooses a label's post-processing, step by step, each on what the steps before have left.

    Of each step's `CANDIDATES` the one with the largest mean Dice is done where it gains at least `LEAST_GAIN` and the
    95 % interval of the gain, over photographs, lies above 0. A smaller one is as likely chance: halving the real
    exports' val 20 times, what gained anything on one half changed mean Dice on the other by -0.0009 for joint lines,
    -0.0003 for cracks and +0.0001 for taping areas. Boxes are never chosen.

    Masks are those delivered without post-processing, one an image of val, each with its target and its photograph's
    id; under `FEW_PHOTOGRAPHS` photographs nothing is chosen.

    Returns:
        The steps, and the masks after them.
    """
    steps = PostProcessing()
    if len(np.unique(photo_ids)) < FEW_PHOTOGRAPHS:
        return steps, masks
    scores = dice_of(masks, targets)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for name, values in progress(CANDIDATES.items(), f"post-processing, {label}", "step"):
            if name == "join_gap" and label not in LINE_LABELS:
                continue
            tried = {v: list(threads.map(_done, masks, repeat(PostProcessing(**{name: v})))) for v in values}
            gains = {value: dice_of(after, targets) - scores for value, after in tried.items()}
            best = max(values, key=lambda value: gains[value].mean())
            if gains[best].mean() >= LEAST_GAIN and bootstrap_interval(gains[best], photo_ids)[0] > 0:
                steps, masks, scores = replace(steps, **{name: best}), tried[best], scores + gains[best]
    return steps, masks


def _done(mask: PackedMask, steps: PostProcessing) -> PackedMask:
    return PackedMask.of(postprocess(mask.unpack(), steps))


def dice_of(masks: Sequence[PackedMask], targets: Sequence[PackedMask]) -> np.ndarray:
    """Returns the Dice of each mask, float (N)."""
    pairs = [(mask.bits, target.bits) for mask, target in zip(masks, targets, strict=True)]
    counts = [[np.bitwise_count(bits).sum() for bits in (ours & theirs, ours, theirs)] for ours, theirs in pairs]
    tp, inside, wanted = np.array(counts, np.int64).reshape(-1, 3).T
    return dice(tp, inside - tp, wanted - tp)


def settle(name_or_dir: str | Path, manifest: Manifest) -> dict[str, Any]:
    """Chooses post-processing and reference of a checkpoint anew and stores them; thresholds and presence cut stay.

    Args:
        name_or_dir: `compact`, or a checkpoint's folder.
        manifest: The data; photographs that the model knows are left out.

    Returns:
        What was stored.

    Raises:
        ValueError: If the checkpoint has no presence cut yet, or no photograph of val is left.
    """
    file = checkpoint_folder(name_or_dir) / THRESHOLDS_FILE
    stored = read_json(file) if file.is_file() else {}
    if "presence_cut" not in stored:
        raise ValueError(f"{file}: no presence cut; its training has not ended")
    predictor = Predictor.load(name_or_dir, raw=True)
    rows, n_known = unseen_rows(predictor, manifest, "val")
    if rows.empty:
        raise ValueError(f"{manifest.data_root}: val has no photograph left without the {n_known} that the model knows")
    chosen = choose_delivery(predictor, manifest, rows)
    write_json(file, {**stored, **chosen})
    return chosen


if __name__ == "__main__":
    data = prepare(resolve_config(data_root=sys.argv[2]))
    print(settle(sys.argv[1], data)["postprocessing"])
