import numpy as np
import pytest

from drywall_seg.data.augment import augment_color, degrade, draw_geometry


def test_geometry_moves_pixels_and_makes_none_up():
    rows, columns = np.indices((50, 80), dtype=np.uint8)
    photo = np.dstack([rows, columns, rows ^ columns])
    mask = np.where((rows // 7 + columns // 3) % 5 < 2, 255, 0).astype(np.uint8)
    steps, sizes = set(), set()
    for seed in range(300):
        geometry = draw_geometry(mask.shape, 0.3, np.random.default_rng(seed))
        image_, mask_ = geometry.apply(photo), geometry.apply(mask)
        y, x = image_[..., 0].astype(int), image_[..., 1].astype(int)
        assert image_.dtype == np.uint8 and np.array_equal(image_[..., 2], y ^ x)
        assert np.array_equal(mask_, np.where((y // 7 + x // 3) % 5 < 2, 255, 0))
        # From one pixel to the next it is one step along one axis of the photo: turned or mirrored, never squashed.
        down, right = np.diff([y, x], axis=1), np.diff([y, x], axis=2)
        assert (down == down[:, :1, :1]).all() and (right == right[:, :1, :1]).all()
        steps.add((*down[:, 0, 0].tolist(), *right[:, 0, 0].tolist()))
        sizes.add(max(mask_.shape))
        assert 24 <= max(mask_.shape) <= 80 and mask_.shape in {(s, s) for s in range(51)} | {
            shape for s in range(81) for shape in ((50, s), (s, 50))
        }
    assert len(steps) == 8  # four turns, mirrored or not
    assert len(sizes) > 40
    whole = draw_geometry(mask.shape, 1.0, np.random.default_rng(0))
    assert np.array_equal(whole.apply(photo), photo) and np.array_equal(whole.apply(mask), mask)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (50, 1), (3, 2)])
def test_the_smallest_photos_and_crops_keep_a_pixel(size_hw):
    photo, mask = np.zeros((*size_hw, 3), np.uint8), np.zeros(size_hw, np.uint8)
    for seed in range(50):
        geometry = draw_geometry(mask.shape, 0.0, np.random.default_rng(seed))
        image_, mask_ = geometry.apply(photo), geometry.apply(mask)
        assert image_.shape[:2] == mask_.shape and mask_.size >= 1


def test_colours_change_within_their_strength():
    photo = np.random.default_rng(1).integers(60, 180, (20, 20, 3), np.uint8)
    assert augment_color(photo, 0, np.random.default_rng(0)) is photo
    changed = [augment_color(photo, 0.2, np.random.default_rng(seed)) for seed in range(400)]
    assert all(c.dtype == np.uint8 and c.shape == photo.shape for c in changed)
    grey = np.array([(c.max(2) == c.min(2)).all() for c in changed])
    assert 0.05 < grey.mean() < 0.16
    means = np.array([c.mean() for c in changed]) / photo.mean()
    spreads = np.array([c.std() for c in changed])[~grey] / photo.std()
    for factors in (means, spreads):
        assert 0.78 < factors.min() < 0.84 and 1.16 < factors.max() < 1.22
    untouched = photo.copy()
    augment_color(photo, 0.2, np.random.default_rng(0))
    assert np.array_equal(photo, untouched)


def test_photos_get_worse_in_three_ways():
    photo = np.random.default_rng(1).integers(0, 255, (40, 30, 3), np.uint8)
    assert degrade(photo, 0, np.random.default_rng(0)) is photo
    results = [degrade(photo, 0.5, np.random.default_rng(seed)) for seed in range(300)]
    assert all(r.shape == photo.shape and r.dtype == np.uint8 for r in results)
    worse = [r for r in results if r is not photo]
    assert 0.4 < len(worse) / 300 < 0.6
    rough = np.array([np.abs(np.diff(r.astype(int), axis=0)).mean() for r in worse])
    rough /= np.abs(np.diff(photo.astype(int), axis=0)).mean()
    assert 0.5 < (rough < 0.9).mean() < 0.8  # two of the three ways smooth
    assert degrade(photo[:1, :1], 1.0, np.random.default_rng(0)).shape == (1, 1, 3)
