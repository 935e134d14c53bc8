import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from drywall_seg import benchmark_clipseg as module
from tests.models.clipseg_folders import TINY, random_model


@pytest.fixture
def tiny(monkeypatch):
    """A tiny CLIPSeg at 64 pixels in place of the one of full size."""
    model = random_model(TINY, 49408)
    monkeypatch.setattr(module, "random_clipseg", lambda: copy.deepcopy(model))
    monkeypatch.setattr(module, "CLIPSEG_SIZE", 64)
    return model


def spy(monkeypatch, owner, name, calls):
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: calls.append(arguments) or original(*arguments))


def test_the_usual_way_is_full_size_and_gives_masks_of_the_photos_size(monkeypatch):
    models = []
    original = module.CLIPSegForImageSegmentation
    monkeypatch.setattr(
        module, "CLIPSegForImageSegmentation", lambda config: models.append(original(config)) or models[-1]
    )
    masks = module.usual_clipseg(np.zeros((60, 100, 3), np.uint8))()
    assert [m.shape for m in masks] == [(60, 100)] * 2 and all(np.isin(m, (0, 255)).all() for m in masks)
    assert sum(p.numel() for p in models[0].parameters()) == pytest.approx(150.7e6, rel=1e-3)
    assert len(models[0].clip.vision_model.encoder.layers) == 12


def test_ways_take_turns_and_the_first_round_is_not_counted():
    calls = []
    rounds = module.time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert rounds.columns.tolist() == ["a", "b"] and rounds.shape == (3, 2) and (rounds > 0).all(axis=None)


def test_summary_of_rounds():
    table = module.summarise(pd.DataFrame({"a": [4.0, 2, 9], "b": [1.0, 1, 7]}), "two ways")
    assert table.loc["a"].to_dict() == {"median_s": 4, "fastest_s": 2, "slowest_s": 9} and table.median_s["b"] == 1
    assert table.index.name == "two ways" and table.attrs["rounds"] == 3


def test_a_machine_that_slows_down_half_way_does_not_change_a_ratio():
    rounds = pd.DataFrame({"a": [1.0, 1, 10], "b": [2.0, 20, 20]})  # tenfold slower within the second round
    assert module.ratios(rounds, 0).tolist() == [1, 0.5]
    assert module.ratios(rounds, 1).tolist() == [2, 1]
    assert rounds.a.median() / rounds.b.median() == 0.05


def test_bare_products_are_all_that_an_encoded_image_multiplies(tiny):
    segmenter = module.random_segmenter().eval()
    segmenter.model.set_attn_implementation("eager")  # torch does not count what its fused attention multiplies
    multiply = module.bare_products(segmenter)
    counted = []
    for run in (lambda: segmenter.encode_images(torch.zeros(1, 3, 64, 64)), multiply):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


def test_bare_products_are_bare(tiny):
    class Recorder(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    segmenter = module.random_segmenter()
    multiply, layers = module.bare_products(segmenter), len(segmenter.image_blocks())
    with Recorder() as recorder:
        multiply()
    views = ("aten.t.default", "aten.transpose.int")
    names = [name for name in recorder.names if name not in views]
    assert names.count("aten.mm.out") == 1 + 6 * layers and names.count("aten.bmm.out") == 2 * layers
    assert len(names) == 1 + 8 * layers


def test_one_encode_for_two_sentences(tiny, monkeypatch):
    encoded, decoded, embedded, repeated = [], [], [], []
    spy(monkeypatch, module.TorchBackend, "encode_images", encoded)
    spy(monkeypatch, module.TorchBackend, "decode", decoded)
    spy(monkeypatch, module.CLIPSegSegmenter, "embed_prompts", embedded)
    original = type(tiny).forward
    monkeypatch.setattr(type(tiny), "forward", lambda self, **given: repeated.append(given) or original(self, **given))
    table = module.benchmark_prompts(2, side=96)
    assert [arguments[1].shape for arguments in encoded] == [(1, 3, 64, 64)] * 6  # in three rounds, alone and within
    assert [(owners, texts.shape[0]) for _, _, owners, texts in decoded] == [([0, 0], 2)] * 3
    assert sorted(texts for _, texts in embedded) == sorted([text] for text in module.SENTENCES)
    assert [given["pixel_values"].shape for given in repeated] == [(2, 3, 64, 64)] * 3
    assert [given["input_ids"].shape for given in repeated] == [(2, 77)] * 3
    assert len(table) == 4 and table.times_as_fast.iloc[0] == 1 and table.of_products.iloc[3] == 1


def test_shares_of_the_products_speed(tiny, monkeypatch):
    rounds = pd.DataFrame([[8.0, 4, 2, 1], [16, 4, 4, 2], [8, 2, 2, 1]], columns=list("abcd"))
    monkeypatch.setattr(module, "time_in_turn", lambda ways, repeats: rounds.set_axis(list(ways), axis=1))
    table = module.benchmark_prompts(3, side=96)
    assert table.times_as_fast.tolist() == [1, 4, 4, 8]
    assert table.of_products.tolist() == [0.125, 0.5, 0.5, 1]


def test_the_three_ways_of_a_training_step(tiny, monkeypatch):
    encoded = []
    spy(monkeypatch, module.CLIPSegSegmenter, "encode_images", encoded)
    table = module.benchmark_training(2, batch_size=3)
    assert len(table) == 3 and table.times_as_fast.iloc[0] == 1 and (table.times_as_fast > 0).all()
    decoder = sum(p.numel() for p in tiny.decoder.parameters())
    assert table.trained.tolist()[1:] == [decoder] * 2 and table.trained.iloc[0] > 2 * decoder
    # Three rounds: twice all three images at once; of the stored ones each is encoded once, and one for the shapes.
    assert sorted(len(pixels) for _, pixels in encoded) == [1] * 4 + [3] * 6
