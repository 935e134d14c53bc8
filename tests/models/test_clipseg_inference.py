import pytest
import torch

from drywall_seg.models import clipseg_inference as module
from drywall_seg.models.clipseg import CLIPSegSegmenter
from tests.models.clipseg_folders import FULL, MEAN, STD, TINY, random_model

PACKS = module.can_pack()


def segmenter_of(shapes, size=64):
    return CLIPSegSegmenter(random_model(shapes), None, size, MEAN, STD).eval()


@pytest.fixture(scope="module")
def full_size():
    return segmenter_of(FULL, 352)


@pytest.fixture(params=["packed", "plain"])
def path(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(module, "can_pack", lambda: False)
    elif not PACKS:
        pytest.skip("this processor, or this torch, packs no weights")


def images_and_embeddings(size, count):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=generator), torch.randn(count, 512, generator=generator)


@pytest.mark.parametrize(("size", "count"), [(352, 1), (352, 3), (512, 1)])
def test_logits_are_those_of_the_segmenter(full_size, path, size, count):
    images, embeddings = images_and_embeddings(size, count)
    fast = full_size.for_inference().eval()
    features = fast.encode_images(images)
    assert [f.shape for f in features] == [(count, 1 + (size // 16) ** 2, 64)] * 3
    with torch.no_grad():
        expected = full_size(images, embeddings)
    difference = (fast.decode(features, embeddings) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5


def test_where_weights_are_packed_and_that_once(full_size, monkeypatch):
    made = []
    original = module.PackedLayer
    monkeypatch.setattr(module, "PackedLayer", lambda *arguments: made.append(arguments[1]) or original(*arguments))
    images, embeddings = images_and_embeddings(32, 1)
    fast = full_size.for_inference().eval()
    assert not made
    for _ in range(2):
        fast(images, embeddings)
    assert made == ([True] * 10 + [False] * 3 if PACKS else [])


def test_an_activation_that_is_not_known_runs_plain(monkeypatch):
    monkeypatch.setattr(module, "PackedLayer", None)  # nothing can be packed
    shapes = {**TINY, "vision_config": {**TINY["vision_config"], "hidden_act": "gelu"}}
    segmenter = segmenter_of(shapes)
    images = torch.randn(1, 3, 64, 64)
    embeddings = torch.randn(1, TINY["projection_dim"])
    with torch.no_grad():
        assert torch.equal(segmenter.for_inference()(images, embeddings), segmenter(images, embeddings))


def test_the_segmenter_stays_as_it_was(full_size):
    before = {name: (id(p), p.requires_grad) for name, p in full_size.named_parameters()}
    full_size.for_inference().eval()
    assert {name: (id(p), p.requires_grad) for name, p in full_size.named_parameters()} == before
    assert [type(m).__name__ for m in full_size.model.decoder.reduces] == ["Linear"] * 3
