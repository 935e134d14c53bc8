import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, gaussian_filter

from drywall_seg.inference.large import tile_side
from drywall_seg.inference.predict import Predictor

PROMPTS = ["segment crack", "segment taping area"]


def wall(height, width, seed=1):
    """A plain wall with a crack of two pixels across it, and where the crack is."""
    rng = np.random.default_rng(seed)
    grey = 205 + gaussian_filter(rng.standard_normal((height, width)), 1.2) * 6 + np.linspace(-15, 15, width)
    x, y = np.linspace(0, width - 1, width // 10), height / 2 + np.cumsum(rng.standard_normal(width // 10) * 9)
    canvas = Image.new("L", (2 * width, 2 * height))
    ImageDraw.Draw(canvas).line([(2 * a, 2 * b) for a, b in zip(x, y, strict=True)], fill=255, width=4)
    crack = np.asarray(canvas.resize((width, height), Image.Resampling.BOX)) / 255
    photo = np.clip(grey * (1 - 0.55 * crack), 0, 255).astype(np.uint8)
    return np.repeat(photo[..., None], 3, axis=2), crack > 0.5


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("compact")


def test_a_hairline_crack_survives_and_the_mask_stays_thin(predictor):
    photo, crack = wall(1500, 2000)
    found, other = predictor.predict(photo, PROMPTS)
    near = binary_dilation(found.mask > 0, iterations=3)
    columns = np.flatnonzero(crack.any(axis=0))
    assert np.mean([(crack[:, column] & near[:, column]).any() for column in columns]) > 0.9
    assert found.presence > 0.9 and not other.mask.any()
    (squashed,) = Predictor.load("compact", image_size=352).predict(photo, PROMPTS[:1])
    assert (found.mask > 0).sum() < 0.4 * (squashed.mask > 0).sum()


def test_probabilities_and_masks_belong_together_and_can_be_left_out(predictor):
    photo, _ = wall(700, 1300)
    whole, bare = (predictor.predict(photo, PROMPTS, with_probs=wanted) for wanted in (True, False))
    for one, two in zip(whole, bare, strict=True):
        assert np.array_equal(one.mask, two.mask) and two.probs is None and one.presence == two.presence
        levels = np.rint(one.probs * 255)
        assert np.array_equal(one.mask > 0, (levels >= np.ceil(255 * one.threshold)) & bool(one.mask.any()))


def test_one_tile_is_the_whole_photo(predictor):
    photo, _ = wall(640, 640)
    for one, two in zip(predictor.predict(photo, PROMPTS), predictor.predict(photo, PROMPTS), strict=True):
        assert np.abs(one.probs - two.probs).max() < 2 / 255 and abs(one.presence - two.presence) < 1e-3


def test_which_photos_are_large():
    assert [is_large(size) for size in ((640, 640), (960, 700), (3000, 4000), (300, 2000))] == [
        False, False, True, True
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_of_a_panorama():
    code = (
        "import numpy as np, resource; from drywall_seg.inference.predict import Predictor\n"
        "from drywall_seg.inference.large import predict_large; p = Predictor.load('compact')\n"
        "predict_large(p, np.full((1000, 1000, 3), 200, np.uint8), ['segment crack'])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "predict_large(p, np.full((1000, 12_000, 3), 200, np.uint8), ['segment crack'], with_probs=False)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 11e6)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 20  # bytes a further pixel, the photo's own three among them
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
