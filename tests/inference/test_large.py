import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, gaussian_filter

from drywall_seg.data.sample_pictures import draw_photograph
from drywall_seg.inference import Predictor
from drywall_seg.inference.large import TILE, tile_side
from drywall_seg.inference.scores import first_level, to_levels
from drywall_seg.inference.tiling import tile_starts

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
    photo, crack = wall(3000, 4000)
    found, other = predictor.predict(photo, PROMPTS, with_probs=False)
    near = binary_dilation(found.mask > 0, iterations=3)
    columns = np.flatnonzero(crack.any(axis=0))
    assert np.mean([(crack[:, column] & near[:, column]).any() for column in columns]) > 0.9
    assert found.presence > 0.9 and not other.mask.any()
    usual = Predictor.load("compact", image_size=352)
    usual.tile = 0
    (squashed,) = usual.predict(photo, PROMPTS[:1])
    assert (found.mask > 0).sum() <= 0.2 * (squashed.mask > 0).sum()


def test_no_seam_where_tiles_meet(predictor):
    y, x = np.mgrid[0:1200, 0:1700]
    smooth = 170 - 110 * np.exp(-(((y - 600 - 80 * np.sin(x / 300)) / 40) ** 2))  # a soft dark band
    photo = np.repeat(smooth[..., None], 3, axis=2).astype(np.uint8)
    probs = predictor.predict(photo, PROMPTS, 0.5)[0].probs
    assert probs.max() > 0.15  # where nothing is seen, nothing could jump
    lefts, tops = tile_starts(1700, TILE), tile_starts(1200, TILE)
    columns = [x for left in lefts for x in (left, left + TILE) if 0 < x < 1700]
    rows = [y for top in tops for y in (top, top + TILE) if 0 < y < 1200]
    assert len(columns) == 2 * len(lefts) - 2 and len(rows) == 2 * len(tops) - 2
    across = np.abs(np.diff(probs, axis=1))[:, np.array(columns) - 1]
    down = np.abs(np.diff(probs, axis=0))[np.array(rows) - 1]
    assert max(across.max(), down.max()) < 2 / 255


def test_of_what_is_wide_the_whole_view_has_the_word(predictor):
    small = draw_photograph(np.random.default_rng(1), "taping_area", (640, 640), 2, False)[0]
    photo = np.asarray(small.resize((1920, 1920), Image.Resampling.BICUBIC))
    asked = ["segment taping area", "trace joint line"]
    whole = Predictor.load("compact")
    whole.tile = 0
    for one, two in zip(predictor.predict(photo, asked), whole.predict(photo, asked), strict=True):
        assert two.mask.any() and np.array_equal(one.mask, two.mask)
        assert np.abs(one.probs - two.probs).max() < 1e-5 and one.presence == pytest.approx(two.presence)
        assert one.doubt == pytest.approx(two.doubt, abs=1e-4)


def test_probabilities_and_masks_belong_together_and_can_be_left_out():
    predictor = Predictor.load("compact", raw=True)
    photo, _ = wall(700, 1300)
    whole, bare = (predictor.predict(photo, PROMPTS, with_probs=wanted) for wanted in (True, False))
    for one, two in zip(whole, bare, strict=True):
        assert np.array_equal(one.mask, two.mask) and two.probs is None
        assert (one.presence, one.doubt) == (two.presence, two.doubt)
        assert np.array_equal(one.mask > 0, (to_levels(one.probs) >= first_level(one.threshold)) & one.mask.any())


def test_a_panorama_is_seen_in_several_views(predictor):
    """A view that held all of it would show a crack 40 pixels high in one and a half of its own."""
    photo, crack = wall(300, 3000)
    (found,) = predictor.predict(photo, PROMPTS[:1])
    columns = np.flatnonzero(crack.any(axis=0))
    near = binary_dilation(found.mask > 0, iterations=3)
    assert np.mean([(crack[:, column] & near[:, column]).any() for column in columns]) > 0.9


def test_large_and_small_photos_in_one_batch(predictor):
    photos = [wall(640, 640)[0], wall(700, 1300)[0], wall(300, 200)[0]]
    together = predictor.predict_batch(photos, [PROMPTS, PROMPTS[:1], []])
    assert [len(answers) for answers in together] == [2, 1, 0]
    for photo, answers in zip(photos, together, strict=True):
        for answer in answers:
            (alone,) = predictor.predict(photo, [answer.prompt])
            assert answer.mask.shape == photo.shape[:2] and np.abs(alone.probs - answer.probs).max() < 1e-4


@pytest.mark.parametrize(
    ("size_hw", "tile", "side"),
    [
        ((640, 640), None, 0),
        ((960, 700), None, 0),
        ((3000, 4000), None, 480),
        ((300, 2000), None, 480),
        ((3000, 4000), 0, 0),
        ((3000, 4000), 1000, 1000),
        ((640, 640), 320, 320),
        ((300, 320), 320, 0),
    ],
)
def test_which_photos_are_tiled(size_hw, tile, side):
    assert tile_side(size_hw, tile) == side


def test_a_tile_too_small_is_refused():
    with pytest.raises(ValueError, match="a tile of 20 pixels"):
        tile_side((640, 640), 20)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_of_a_panorama_from_a_file(tmp_path):
    for width in (1000, 16_000):
        Image.new("RGB", (width, 1000), (200, 190, 180)).save(tmp_path / f"{width}.jpg")
    code = (
        "import resource, sys; from drywall_seg.inference import Predictor\n"
        "p = Predictor.load('compact', device='cpu')\n"
        "for width in (1000, 16_000):\n"
        f"  p.predict(rf'{tmp_path}/{{width}}.jpg', {PROMPTS}, with_probs=False)\n"
        "  print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, large = map(int, ran.stdout.split())
    assert (large - small) / 15e6 < 10 + 15  # bytes a further pixel, and of a row of tiles across all of it
