import copy
import re

import pytest
import torch
from torch import nn

from drywall_seg.models import load_segmenter
from drywall_seg.models.base import Segmenter


class Toy(Segmenter):
    """Pixels plus a number that depends on the sentence's length; counts what its prompt encoder is asked."""

    size_step = 4

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))
        self.text = nn.Linear(1, 2)
        self.head = nn.Linear(2, 1)
        self.asked = []

    def encode_images(self, pixel_values):
        self.check_side(*pixel_values.shape)
        return (self.encoder(pixel_values),)

    def decode(self, features, prompt_embeddings):
        return features[0].mean(1) + self.head(prompt_embeddings)[..., None]

    def embed_prompts(self, prompts):
        self.asked += prompts
        return self.text(torch.tensor([[float(len(text))] for text in prompts]))

    def prompt_encoder(self):
        return [self.text]

    def parts(self):
        return {"encoder": [self.encoder, self.text], "decoder": [self.head]}

    def image_blocks(self):
        return [self.encoder[0], self.encoder[2]]


@pytest.fixture
def toy():
    segmenter = Toy()
    segmenter.trainable_parameters("decoder")
    return segmenter.eval()


def test_a_sentence_is_embedded_once(toy):
    first = toy.encode_prompts(["crack", "seam!", "crack"])
    second = toy.encode_prompts(["seam!", "tape", "crack"])
    assert toy.asked == ["crack", "seam!", "tape"]
    assert first.shape == (3, 2)
    assert torch.equal(first[0], first[2]) and torch.equal(second[2], first[0]) and torch.equal(second[0], first[1])


def test_nothing_is_kept_while_the_prompt_encoder_trains(toy):
    toy.trainable_parameters("all")
    toy.train()
    embeddings = toy.encode_prompts(["crack", "crack"])
    embeddings.sum().backward()
    assert toy.text.weight.grad is not None
    with torch.no_grad():
        toy.encode_prompts(["crack"])
        toy.encode_prompts(["crack"])
    assert toy.asked == ["crack"] * 3
    toy.eval()
    with torch.no_grad():
        toy.encode_prompts(["crack"])
        toy.encode_prompts(["crack"])
    assert toy.asked == ["crack"] * 4


def change_by_optimiser(toy):
    optimiser = torch.optim.AdamW(toy.text.parameters(), lr=0.5)  # without a word to the segmenter
    for weight in toy.text.parameters():
        weight.grad = torch.ones_like(weight)
    optimiser.step()
    return toy


def change_by_state(toy):
    other = Toy()
    toy.load_state_dict(other.state_dict())
    return toy


def change_by_averaging(toy):
    averaged = copy.deepcopy(toy)  # with what it has cached
    with torch.no_grad():
        for weight in averaged.parameters():
            weight.lerp_(torch.ones_like(weight), 0.5)
    return averaged


@pytest.mark.parametrize("change", [change_by_optimiser, change_by_state, change_by_averaging])
def test_embeddings_are_never_stale(toy, change):
    with torch.no_grad():
        before = toy.encode_prompts(["crack"])
        changed = change(toy)
        after = changed.encode_prompts(["crack"])
        assert not torch.equal(before, after)
        assert torch.equal(after, changed.embed_prompts(["crack"]))


@pytest.mark.parametrize("move", [lambda toy: toy.double(), lambda toy: toy.train(), lambda toy: toy.eval()])
def test_embeddings_are_forgotten_on_moves(toy, move):
    toy.encode_prompts(["crack"])
    move(toy)
    assert not toy._prompt_cache


def test_kept_embeddings_are_full_precision_and_trainable_with(toy):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        toy.encode_prompts(["crack"])
    embeddings = toy.encode_prompts(["crack"])
    assert toy.asked == ["crack"] and embeddings.dtype == torch.float32
    toy.decode((torch.zeros(1, 3, 4, 4),), embeddings).sum().backward()
    assert toy.head.weight.grad is not None


def test_frozen_parts_stay_in_evaluation_mode(toy):
    toy.train()
    assert toy.head.training and not toy.encoder[0].training and not toy.encoder[1].training
    toy.trainable_parameters("all")
    assert toy.encoder[0].training
    toy.trainable_parameters("decoder")  # freezing in training mode counts too
    assert toy.head.training and not toy.encoder[0].training
    before = toy.encoder[0].running_mean.clone()
    toy.encode_images(torch.full((2, 3, 4, 4), 9.0))
    assert torch.equal(toy.encoder[0].running_mean, before)


def test_trainable_parameters(toy):
    assert {id(p) for p in toy.trainable_parameters("all")} == {id(p) for p in toy.parameters()}
    assert {id(p) for p in toy.trainable_parameters("decoder")} == {id(p) for p in toy.head.parameters()}
    for part in ("head", "decoder+0", "decoder+", "all+1"):
        with pytest.raises(ValueError, match=re.escape(f"trainable is {part!r}")):
            toy.trainable_parameters(part)


def test_the_last_blocks_of_the_image_encoder_can_train_too(toy):
    last = {id(p) for module in (toy.head, toy.encoder[2]) for p in module.parameters()}
    assert {id(p) for p in toy.trainable_parameters("decoder+1")} == last
    toy.train()
    assert toy.encoder[2].training and not toy.encoder[0].training
    both = last | {id(p) for p in toy.encoder[0].parameters()}
    assert {id(p) for p in toy.trainable_parameters("decoder+2")} == both
    assert toy.encoder[0].training
    with pytest.raises(ValueError, match=r"'decoder\+3', but the image encoder has 2 blocks"):
        toy.trainable_parameters("decoder+3")


@pytest.mark.parametrize("shape", [(1, 3, 8, 12), (1, 3, 6, 6), (1, 3, 0, 0)])
def test_sides_that_do_not_fit(toy, shape):
    with pytest.raises(ValueError, match=f"images of {shape[2]} x {shape[3]} pixels.* 4 divides"):
        toy.encode_images(torch.zeros(shape))


def test_forward_is_encode_then_decode(toy):
    images = torch.randn(2, 3, 8, 8)
    embeddings = toy.encode_prompts(["crack", "tape"])
    assert torch.equal(toy(images, embeddings), toy.decode(toy.encode_images(images), embeddings))


def test_folders_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}.*neither segmenter.json.*nor config.json"):
        load_segmenter(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        load_segmenter(tmp_path / "nowhere")
    checkpoint = tmp_path / "run" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "segmenter.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{tmp_path / 'run'}: a run's folder; its model is in {checkpoint}"):
        load_segmenter(tmp_path / "run")
    (tmp_path / "segmenter.json").write_text('{"architecture": "unet"}')
    with pytest.raises(ValueError, match="segmenter.json: unknown architecture 'unet'"):
        load_segmenter(tmp_path)
    for text in ("[]", "{}", '"compact"'):
        (tmp_path / "segmenter.json").write_text(text)
        with pytest.raises(ValueError, match="segmenter.json: says nothing of architecture"):
            load_segmenter(tmp_path)
    (tmp_path / "segmenter.json").write_text("{")
    with pytest.raises(ValueError, match="segmenter.json: not JSON"):
        load_segmenter(tmp_path)
