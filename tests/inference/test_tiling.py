import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drywall_seg.inference.tiling import blending_weights, tile_starts, tiled_scores


def whole(photo, score, tile, n_prompts=1, **settings):
    rows = list(tiled_scores(photo, n_prompts, score, tile, **settings))
    tops = [top for top, _ in rows]
    assert tops == np.cumsum([0, *(part.shape[1] for _, part in rows)])[:-1].tolist()
    return np.concatenate([part for _, part in rows], axis=1)


def brightness(tiles):
    return tiles[..., 0][:, None].astype(np.float32)


@given(st.integers(1, 5000), st.integers(8, 600), st.floats(0, 0.8))
def test_tiles_cover_a_side_and_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] == max(0, length - tile)
    steps = np.diff(starts)
    assert (steps > 0).all() and (steps <= tile * (1 - overlap) + 1).all()


@pytest.mark.parametrize("size_hw", [(300, 500), (64, 64), (65, 63), (10, 400), (400, 3), (1, 1)])
def test_what_depends_on_a_pixel_alone_comes_back_as_it_was(size_hw):
    photo = np.random.default_rng(0).integers(0, 255, (*size_hw, 3), np.uint8)
    assert np.allclose(whole(photo, brightness, 64)[0], photo[..., 0], atol=1e-3)
    two = whole(photo, lambda t: np.concatenate([brightness(t), 255 - brightness(t)], 1), 64, 2, batch_size=3)
    assert two.shape == (2, *size_hw) and np.allclose(two.sum(0), 255, atol=1e-3)


def test_no_seam_where_tiles_disagree():
    """Each tile is brighter than the last: the worst that neighbours can do; the change is spread over the overlap."""
    count = iter(range(1000))

    def disagree(tiles):
        return np.float32([np.full((1, *tile.shape[:2]), 20.0 * (next(count) % 2)) for tile in tiles])

    blended = whole(np.zeros((200, 1000, 3), np.uint8), disagree, 200)
    assert np.ptp(blended) > 15
    assert np.abs(np.diff(blended[0], axis=1)).max() < 2 and np.abs(np.diff(blended[0], axis=0)).max() < 2


def test_a_row_of_tiles_is_held_and_no_more():
    sizes = []

    def score(tiles):
        sizes.append(tiles.shape)
        return brightness(tiles)

    heights = [part.shape for _, part in tiled_scores(np.zeros((900, 300, 3), np.uint8), 1, score, 100)]
    assert max(shape[1] for shape in heights) <= 100 and sum(shape[1] for shape in heights) == 900
    assert {shape[1:] for shape in sizes} == {(100, 100, 3)} and max(shape[0] for shape in sizes) == 2


def test_weights_never_vanish():
    weights = blending_weights(64)
    assert weights.min() > 0 and weights.argmax() in (31, 32) and np.allclose(weights, weights[::-1])
