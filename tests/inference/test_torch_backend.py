import sys

import numpy as np
import pytest

from drywall_seg.inference import torch_backend
from drywall_seg.inference.torch_backend import TorchBackend, keep_memory
from drywall_seg.models.compact import new_compact


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_is_kept_where_glibc_can(monkeypatch):
    assert keep_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_memory()
    monkeypatch.undo()
    monkeypatch.setattr(torch_backend.ctypes, "CDLL", lambda _: object())  # another C library
    assert not keep_memory()


def test_an_image_asked_for_alone_gives_what_it_gives_among_others():
    backend = TorchBackend(new_compact(64))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    features = backend.encode_images(pixels)
    embeddings = backend.encode_prompts(["segment crack", "segment taping area", "trace joint line"])
    together = backend.decode(features, [1, 0, 1], embeddings)
    assert together.shape == (3, 64, 64)
    np.testing.assert_allclose(backend.decode(features, [1, 1], embeddings[[0, 2]]), together[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(backend.decode(features, [0], embeddings[1:2]), together[1:2], atol=1e-5)
