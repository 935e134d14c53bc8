"""Large photos: tiles beside the whole photo squashed, and what more pixels cost in time and memory."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from drywall_seg.benchmark_clipseg import CLIPSEG_SIZE, SENTENCES, drawn_photo, ratios, summarise, time_in_turn
from drywall_seg.images import STRIP
from drywall_seg.inference.predict import Predictor
from drywall_seg.runs import progress

SIZES = (12, 100)
"""Megapixels."""


def draw_wall(megapixels: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws a wall of 4 x 3: noise, shading from left to right, and a dark crack of 2 pixels across it.

    Returns:
        uint8 (H, W, 3), and of each column the first of the crack's two rows, (W).
    """
    rng = np.random.default_rng(42)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    corners = np.linspace(0, width - 1, width // 10 + 2)
    path = np.interp(np.arange(width), corners, height / 2 + np.cumsum(rng.normal(0, 9, len(corners))))
    rows = np.clip(path.round().astype(int), 0, height - 2)
    shading = np.linspace(190, 220, width, dtype=np.float32)
    photo = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP):  # at once, the noise of 100 megapixels would be the most memory of all
        noise = rng.standard_normal((min(STRIP, height - top), width), np.float32)
        photo[top : top + STRIP] = (gaussian_filter(noise, 1.2) * 6 + shading)[..., None]
    for row in (rows, rows + 1):
        photo[row, np.arange(width)] = photo[row, np.arange(width)] * 0.45
    return photo, rows


def benchmark_large(repeats: int = 3, megapixels: float = SIZES[0]) -> pd.DataFrame:
    """Times the compact model on a drawn wall of so many megapixels, by tiles and squashed to a square as a whole.

    Returns:
        `summarise`'s table with times_as_long as the first row, the pixels of each sentence's mask, and columns_found,
        the share of the crack's columns where the crack's mask covers it.
    """
    photo, rows = draw_wall(megapixels)
    tiled, usual = Predictor.load("compact"), Predictor.load("compact", image_size=CLIPSEG_SIZE)

    def squash() -> list[np.ndarray]:
        small = Image.fromarray(photo).resize((CLIPSEG_SIZE, CLIPSEG_SIZE), Image.Resampling.BILINEAR)
        found = [(Image.fromarray(p.probs), p.threshold) for p in usual.predict(small, SENTENCES)]
        size_wh = photo.shape[1::-1]
        return [np.asarray(probs.resize(size_wh, Image.Resampling.BILINEAR)) >= cut for probs, cut in found]

    ways = {
        f"squashed to {CLIPSEG_SIZE}, the usual way": squash,
        "by tiles": lambda: [p.mask > 0 for p in tiled.predict(photo, SENTENCES, with_probs=False)],
    }
    rounds = time_in_turn(ways, repeats)
    table = summarise(rounds, f"{photo.shape[1]} x {photo.shape[0]} px, crack of {2 * len(rows):,} px")
    table["times_as_long"] = 1 / ratios(rounds, 0)
    masks = [way() for way in ways.values()]
    for number, text in enumerate(SENTENCES):
        table[f"{text}: px"] = [int(found[number].sum()) for found in masks]
    columns = np.arange(len(rows))
    table["columns_found"] = [(found[0][rows, columns] | found[0][rows + 1, columns]).mean() for found in masks]
    return table


def benchmark_memory(repeats: int = 3, sizes: tuple[float, ...] = SIZES) -> pd.DataFrame:
    """Predicts drawn walls of these megapixels, each time in a process of its own; the sizes take turns.

    Returns:
        A row for each size: median_s of the prediction, its fastest and slowest round, time_per_megapixel as a multiple
        of the first row's, peak_mb, the most memory that a process held, and beyond_mb, the part of it beyond the photo
        and its masks.
    """
    told = [[_in_a_process(size) for size in sizes] for _ in progress(range(repeats), "benchmark", "round")]
    rounds = pd.DataFrame([[one["seconds"] for one in line] for line in told], columns=[f"{size:g}" for size in sizes])
    table = summarise(rounds, f"megapixels, {len(SENTENCES)} sentences")
    peaks = np.max([[one["peak_mb"] for one in line] for line in told], axis=0)
    held = np.array([one["held_mb"] for one in told[0]])
    table["time_per_megapixel"] = sizes[0] / ratios(rounds, 0) / np.array(sizes)
    return table.assign(peak_mb=peaks, beyond_mb=peaks - held)


def _in_a_process(megapixels: float) -> dict[str, float]:
    code = f"from drywall_seg.benchmark_large import predict_wall; predict_wall({megapixels})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{megapixels:g} megapixels: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def predict_wall(megapixels: float) -> None:
    """Predicts a drawn wall, and prints as JSON its seconds, and megabytes: the process's peak, photo and masks."""
    predictor = Predictor.load("compact")
    predictor.predict(drawn_photo(640), SENTENCES)  # what only the first photo costs
    photo, _ = draw_wall(megapixels)
    started = time.perf_counter()
    masks = [p.mask for p in predictor.predict(photo, SENTENCES, with_probs=False)]
    seconds = time.perf_counter() - started
    held = photo.nbytes + sum(mask.nbytes for mask in masks)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_memory(), "held_mb": held / 1e6}))


def peak_memory() -> float:
    """Returns the most memory that this process ever held, in megabytes.

    On Linux not by `getrusage`: there a process starts with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
