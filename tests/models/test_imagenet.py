import pytest
import torch

from drywall_seg.models.compact import new_compact
from drywall_seg.models.imagenet import imagenet_compact


def test_the_public_weights_fit_layer_by_layer():
    before = new_compact(64, 42).state_dict()
    segmenter = imagenet_compact(64, 42).eval()
    changed = {n for n, t in segmenter.state_dict().items() if not torch.equal(t, before[n])}
    assert {n.split(".")[0] for n in changed} == {"encoder"}
    # A trained network has narrowed its features by the last stage; a layer in another's place would not.
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scales = [features.std().item() for features in segmenter.encode_images(image)]
    assert scales == sorted(scales, reverse=True)
    assert 1 < scales[-1] < scales[0] < 20


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr("drywall_seg.models.imagenet.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"drywall-seg\[imagenet\]"):
        imagenet_compact(64, 42)
