"""What a prediction costs: seconds, with reading, resizing and writing apart from the model, and memory."""

import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from drywall_seg.images import read_image
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.torch_backend import default_device, device_name, half_precision
from drywall_seg.prompts import canonical_prompt
from drywall_seg.runs import CHECKPOINT, progress, write_mask

PROMPT = canonical_prompt("crack")


class _Timed:
    """A backend whose calls are timed, with the device's work done at the end of each."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.seconds = backend, 0.0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.backend, name)
        if name not in ("encode_prompts", "encode_images", "decode"):
            return value

        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = value(*arguments)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - started
            return result

        return call


def measure_runtime(
    predictor: Predictor, photos: list[Path], batch_sizes: tuple[int, ...] = (1, 8), n_batches: int = 12
) -> pd.DataFrame:
    """Times predictions of one sentence a photo; a batch before the `n_batches` warms up and is not counted.

    The photos are taken in turn, and again from the first where there are too few.

    Returns:
        One row for each batch size and step (read, model, resize and threshold, write, all): batch_size, step,
        median_s and p95_s, of seconds a photo. No rows without photos.
    """
    results = []
    timed = _Timed(predictor.backend)
    watched = Predictor(timed, predictor.thresholds, predictor.presence_cut, predictor.postprocessing)
    with tempfile.TemporaryDirectory() as folder:
        for size in batch_sizes if photos else ():
            steps = defaultdict(list)
            for number in progress(range(n_batches + 1), f"timing, {size} at once", "batch"):
                chosen = [photos[(number * size + i) % len(photos)] for i in range(size)]
                moments = [time.perf_counter()]
                images = [read_image(path) for path in chosen]
                moments.append(time.perf_counter())
                timed.seconds = 0.0
                answers = watched.predict_batch(images, [[PROMPT]] * size)
                moments.append(time.perf_counter())
                for i, (answer,) in enumerate(answers):
                    write_mask(Path(folder) / f"{i}.png", answer.mask)
                moments.append(time.perf_counter())
                if number:
                    read, predict, write = np.diff(moments)
                    took = {"read": read, "model": timed.seconds, "resize and threshold": predict - timed.seconds}
                    for step, value in {**took, "write": write, "all": read + predict + write}.items():
                        steps[step].append(value / size)
            for step, values in steps.items():
                results.append([size, step, np.median(values), np.percentile(values, 95)])
    return pd.DataFrame(results, columns=["batch_size", "step", "median_s", "p95_s"])


def footprint(predictor: Predictor, folder: Path) -> dict[str, Any]:
    """Returns device, dtype, image_size, peak memory of this process in bytes, checkpoint bytes, training seconds.

    What a run does not have (a baseline: a checkpoint, a training) is None.
    """
    files = [path for path in (folder / CHECKPOINT).rglob("*") if path.is_file()]
    history = folder / "history.csv"
    seconds = pd.read_csv(history).get("seconds", pd.Series(dtype=float)).sum() if history.is_file() else None
    return {
        "device": device_name(),
        "dtype": str(half_precision(default_device()) or torch.float32).removeprefix("torch."),
        "image_size": predictor.backend.image_size,
        "peak_memory_bytes": peak_memory(),
        "checkpoint_bytes": sum(path.stat().st_size for path in files) if files else None,
        "training_seconds": float(seconds) if seconds is not None else None,
    }


def peak_memory() -> int:
    """Returns the most bytes that this process has had at once: of the GPU's memory, or on a CPU of the machine's."""
    if default_device() == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
