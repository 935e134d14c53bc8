import subprocess
import sys

import numpy as np
import pytest

from drywall_seg import benchmark_large as module
from drywall_seg.inference.predict import Prediction


def test_the_wall_has_a_crack_of_two_pixels():
    photo, rows = module.draw_wall(0.3)
    height, width = photo.shape[:2]
    assert height * width == pytest.approx(0.3e6, rel=0.01) and photo.dtype == np.uint8 and rows.shape == (width,)
    columns = np.arange(width)
    dark = photo[..., 0] < 140
    assert (dark.sum(axis=0) == 2).all() and dark[rows, columns].all() and dark[rows + 1, columns].all()
    assert photo[:, : width // 4].mean() + 10 < photo[:, -width // 4 :].mean()
    assert np.array_equal(module.draw_wall(0.3)[0], photo)


def test_a_wall_of_many_strips_has_no_gap(monkeypatch):
    monkeypatch.setattr(module, "STRIP", 7)
    photo, _ = module.draw_wall(0.01)
    assert photo.shape == (87, 116, 3) and np.median(photo, axis=1).min() > 190


class Wall:
    """Stands in for the model: by tiles it finds the left half of the crack, and of a small photo all of it."""

    asked = []

    def __init__(self, name, image_size=None):
        self.image_size = image_size

    def predict(self, photo, prompts, with_probs=True):
        self.asked.append((self.image_size, np.asarray(photo).shape, with_probs))
        if with_probs:
            probs = np.full(np.asarray(photo).shape[:2], 0.7, np.float32)
            mask = np.full(probs.shape, 255, np.uint8)
            return [Prediction(prompts[0], probs, mask, 0.6, 1), Prediction(prompts[1], probs, 0 * mask, 0.8, 1)]
        _, rows = module.draw_wall(0.1)
        mask = np.zeros(photo.shape[:2], np.uint8)
        half = np.arange(len(rows) // 2)
        mask[rows[half] + 1, half] = 255
        return [Prediction(prompts[0], None, mask, 0.5, 1), Prediction(prompts[1], None, 0 * mask, 0.5, 0)]


def test_tiles_beside_the_squashed_photo(monkeypatch):
    monkeypatch.setattr(module.Predictor, "load", Wall)
    monkeypatch.setattr(Wall, "asked", [])
    table = module.benchmark_large(2, 0.1)
    height, width = module.draw_wall(0.1)[0].shape[:2]
    # Three rounds, and once more for the masks.
    assert Wall.asked == [(352, (352, 352, 3), True), (None, (height, width, 3), False)] * 3 + Wall.asked[:2]
    usual, tiles = table.to_dict("records")
    crack, other = "segment crack: px", "segment taping area: px"
    assert usual["columns_found"] == 1 and (usual[crack], usual[other]) == (height * width, 0)
    assert tiles["columns_found"] == pytest.approx(0.5, abs=1 / width) and (tiles[crack], tiles[other]) == (
        width // 2,
        0,
    )
    assert usual["times_as_long"] == 1


def test_sizes_take_turns_and_are_compared_by_megapixel(monkeypatch):
    told = iter([(1.0, 500, 10), (8.0, 600, 100), (2.0, 450, 10), (30.0, 650, 100), (3.0, 400, 10), (30.0, 620, 100)])
    asked = []

    def run(size):
        asked.append(size)
        return dict(zip(("seconds", "peak_mb", "held_mb"), next(told), strict=True))

    monkeypatch.setattr(module, "_in_a_process", run)
    table = module.benchmark_memory(3, (1, 10))
    assert asked == [1, 10] * 3
    assert table.median_s.tolist() == [2, 30] and table.time_per_megapixel.tolist() == pytest.approx([1, 1.0])
    assert table.peak_mb.tolist() == [500, 650] and table.beyond_mb.tolist() == [490, 550]


def test_a_process_of_its_own_says_what_a_wall_costs():
    told = module._in_a_process(0.5)
    assert told["held_mb"] == pytest.approx(0.5 * (3 + 2), rel=0.01)  # a photo of three bytes a pixel, and two masks
    assert told["seconds"] > 0 and told["peak_mb"] > 50


def test_a_process_that_fails_is_no_measurement(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "false")
    with pytest.raises(RuntimeError, match="^3 megapixels"):
        module._in_a_process(3)


def test_the_peak_is_this_processs_own_and_in_megabytes():
    ballast = np.ones(100_000_000)  # 800 MB of the process that starts the other, besides its own torch
    code = """
import numpy as np
from drywall_seg.benchmark_large import peak_memory
before = peak_memory()
np.ones(25_000_000)
print(before, peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, more = map(float, done.stdout.split())
    assert before < module.peak_memory() - 0.5 * ballast.nbytes / 1e6 and more == pytest.approx(200, rel=0.05)
