import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drywall_seg.images import ImageError
from drywall_seg.inference import Predictor
from drywall_seg.inference.scores import presence_of
from drywall_seg.prompts import LABELS, canonical_prompt


class Fake:
    """A backend that answers with the photo's red channel, and counts its calls."""

    image_size, mean, std = 32, (0.5,) * 3, (0.5,) * 3
    trained_on, model_hash = frozenset(), "fake"

    def __init__(self):
        self.images, self.texts = 0, []

    def encode_prompts(self, prompts):
        self.texts += prompts
        return np.float32([[len(p), "crack" in p, "joint" in p or "seam" in p] for p in prompts])

    def encode_images(self, pixel_values):
        self.images += len(pixel_values)
        return pixel_values

    def decode(self, features, images, prompt_embeddings):
        return np.stack([features[i, 0] * 8 for i in images])


def photo(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = 255
    return image


def test_one_encode_for_two_prompts():
    backend = Fake()
    answers = Predictor(backend).predict(photo(40, 64), ["segment crack", "trace joint line"])
    assert backend.images == 1
    assert [a.prompt for a in answers] == ["segment crack", "trace joint line"]


@pytest.mark.parametrize("size_hw", [(40, 64), (64, 40), (30, 300), (32, 32)])
def test_masks_have_the_photos_size_and_place(size_hw):
    (answer,) = Predictor(Fake()).predict(photo(*size_hw), ["segment crack"])
    assert answer.mask.shape == answer.probs.shape == size_hw
    assert answer.mask.dtype == np.uint8
    assert answer.probs.dtype == np.float32
    assert set(np.unique(answer.mask)) == {0, 255}
    assert 0 <= answer.probs.min() <= answer.probs.max() <= 1
    assert ((answer.mask > 0) != (photo(*size_hw)[..., 0] > 0)).mean() < 0.2
    assert 0.9 < answer.presence <= 1


def test_the_mask_is_the_level_at_the_threshold():
    predictor = Predictor(Fake(), {"crack": 0.9})
    (answer,) = predictor.predict(photo(40, 64), ["segment crack"])
    assert answer.threshold == 0.9
    assert np.array_equal(answer.mask > 0, np.rint(answer.probs * 255) >= np.ceil(255 * 0.9))
    (answer,) = predictor.predict(photo(40, 64), ["segment crack"], threshold=0)
    assert (answer.mask == 255).all()


def test_a_free_sentence_takes_the_threshold_of_the_nearest_label():
    predictor = Predictor(Fake(), {"crack": 0.2, "taping_area": 0.3, "joint_line": 0.4})
    assert [predictor.threshold_for(canonical_prompt(label)) for label in LABELS] == [0.2, 0.3, 0.4]
    assert predictor.threshold_for("find the crack") == 0.2
    assert Predictor(Fake()).threshold_for("segment crack") == 0.5


def test_a_mask_below_the_presence_cut_is_empty():
    kept, emptied = (
        Predictor(Fake(), presence_cut=cut).predict(photo(40, 64), ["segment crack"])[0] for cut in (0.5, 1.0)
    )
    assert kept.presence == emptied.presence < 1
    assert kept.mask.any()
    assert not emptied.mask.any()
    assert np.array_equal(kept.probs, emptied.probs)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 99, 100, 999, 1000, 2001, 5000, 123_456]))
@settings(max_examples=50, deadline=None)
def test_presence_is_the_mean_of_the_surest_thousandth(seed, size):
    rng = np.random.default_rng(seed)
    logits = rng.integers(-8, 8, size).astype(np.float32) if seed % 2 else rng.normal(size=size).astype(np.float32)
    surest = np.sort(logits)[-max(1, size // 1000) :]
    assert presence_of(logits) == pytest.approx((1 / (1 + np.exp(-surest))).mean(), rel=1e-6)


def test_batches_equal_single_photos():
    photos, prompts = [photo(40, 64), photo(64, 40)], [["segment crack"], ["segment crack", "trace joint line"]]
    predictor = Predictor(Fake())
    for single, many in zip(
        [predictor.predict(p, t) for p, t in zip(photos, prompts, strict=True)],
        predictor.predict_batch(photos, prompts),
        strict=True,
    ):
        assert all(np.array_equal(a.probs, b.probs) for a, b in zip(single, many, strict=True))
    assert predictor.predict(photos[0], []) == []


def test_paths_and_pil_images(tmp_path):
    Image.fromarray(photo(40, 64)).save(tmp_path / "a.png")
    predictor = Predictor(Fake())
    masks = [
        predictor.predict(source, ["segment crack"])[0].mask
        for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(photo(40, 64)), photo(40, 64))
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    with pytest.raises(ImageError, match=r"none\.png"):
        predictor.predict(tmp_path / "none.png", ["segment crack"])


def test_importing_inference_loads_neither_torch_nor_transformers():
    code = "import sys, drywall_seg.inference; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_the_compact_model_end_to_end():
    predictor = Predictor.load("compact", image_size=64)
    one, two = predictor.predict(photo(40, 64), ["segment crack", "a dog"])
    assert one.mask.shape == (40, 64)
    assert not np.array_equal(one.probs, two.probs)


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        Predictor.load(tmp_path)
