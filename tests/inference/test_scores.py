import numpy as np
import pytest

from drywall_seg.inference import Predictor
from drywall_seg.inference.scores import count_around, doubt_of, to_levels
from tests.inference.test_predict import Fake, photo


@pytest.mark.parametrize(
    ("counts", "presence", "cut", "doubt"),
    [
        ((100, 80), 0.99, 0.5, 0.2),
        ((100, 100), 0.99, 0.0, 0.0),
        ((0, 0), 0.99, 0.5, 0.0),
        ((100, 0), 0.99, 0.5, 1.0),
        ((100, 100), 0.55, 0.5, 1.0),  # a cut a little higher empties it
        ((100, 100), 0.45, 0.5, 1.0),  # one a little lower does not
        ((100, 100), 0.39, 0.5, 0.0),  # neither
        ((100, 90), 0.97, 0.92, 0.1),  # so high a cut has less room above it
        ((100, 90), 0.95, 0.92, 1.0),
    ],
)
def test_doubt_is_what_hangs_on_the_threshold_and_the_cut(counts, presence, cut, doubt):
    assert doubt_of(np.array(counts), presence, cut) == pytest.approx(doubt)


def test_the_two_masks_around_a_threshold():
    probs = np.array([0.0, 0.1, 0.35, 0.42, 0.5, 0.58, 0.65, 1.0], np.float32)
    assert count_around(to_levels(probs), 0.5).tolist() == [5, 2]
    assert count_around(to_levels(probs), 0.02).tolist() == [7, 6]  # the lower is no mask of everything
    assert count_around(to_levels(probs), 0.97).tolist() == [1, 1]


def test_a_sharp_answer_has_no_doubt_and_a_slope_has():
    slope = np.repeat(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (40, 1))[..., None], 3, axis=2)
    sharp, other = (Predictor(Fake()).predict(image, ["segment crack"], 0.5)[0] for image in (photo(40, 64), slope))
    assert sharp.doubt == 0
    levels = to_levels(other.probs)
    assert 0 < other.doubt == 1 - (levels >= 153).sum() / (levels >= 102).sum() < 0.2
