import copy

import numpy as np
import pytest
from click.testing import CliRunner

from drywall_seg import benchmark as module
from drywall_seg.cli import main
from tests.models.clipseg_folders import TINY, random_model


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
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    table = module._time_in_turn(ways, 3, "two ways")
    assert calls == ["a", "b"] * 4
    assert table.index.tolist() == ["a", "b"] and table.index.name == "two ways"
    assert (table.fastest_s > 0).all() and (table.fastest_s <= table.median_s).all()
    assert (table.median_s <= table.slowest_s).all()


@pytest.fixture
def clock(monkeypatch):
    """A clock that a way moves on: by 4, 8, 6 seconds for the first, a twentieth for the second, once warmed up."""
    monkeypatch.setattr(module, "usual_clipseg", lambda photo: lambda: None)
    moments = iter(np.cumsum([t for s in (100, 4, 8, 6) for t in (0, s, 0, s / 20)]).tolist())
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(moments))


def test_ratios(clock, monkeypatch):
    monkeypatch.setattr(module.Predictor, "predict", lambda *_: [])
    table = module.benchmark(3)
    assert table.median_s.tolist() == pytest.approx([6.0, 0.3]) and table.slowest_s.tolist() == pytest.approx([8, 0.4])
    assert table.times_as_fast.tolist() == pytest.approx([1.0, 20.0])


def test_ratio_of_the_evaluation(clock, monkeypatch, sample_manifest):
    asked, scored = [], []
    monkeypatch.setattr(
        module.Predictor, "predict_batch", lambda _, files, texts: asked.extend(zip(files, texts, strict=True)) or ()
    )
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored.append(arguments[1:]))
    table = module.benchmark_evaluation(sample_manifest, 3)
    rows = sample_manifest.rows("test")
    assert len(asked) == 4 * rows.image_id.nunique() and sum(len(p) for _, p in asked) == 4 * len(rows)
    assert scored == [(sample_manifest, "test")] * 4
    assert table.times_as_long.tolist() == pytest.approx([1.0, 0.05])


def test_the_three_ways_of_a_training_step(monkeypatch):
    tiny = random_model(TINY, 49408)
    monkeypatch.setattr(module, "random_clipseg", lambda: copy.deepcopy(tiny))
    monkeypatch.setattr(module, "CLIPSEG_SIZE", 64)
    encoded = []
    encode = module.CLIPSegSegmenter.encode_images
    monkeypatch.setattr(
        module.CLIPSegSegmenter, "encode_images", lambda self, p: encoded.append(p.shape) or encode(self, p)
    )
    table = module.benchmark_training(2, batch_size=3)
    assert len(table) == 3 and table.times_as_fast.iloc[0] == 1 and (table.times_as_fast > 0).all()
    decoder = sum(p.numel() for p in tiny.decoder.parameters())
    assert table.trained.tolist()[1:] == [decoder] * 2 and table.trained.iloc[0] > 2 * decoder
    # Three rounds: twice all three images at once; of the stored ones each is encoded once, and one for the shapes.
    assert sorted(shape[0] for shape in encoded) == [1] * 4 + [3] * 6


def test_command(monkeypatch):
    monkeypatch.setattr(module, "usual_clipseg", lambda photo: lambda: None)
    result = CliRunner().invoke(main, ["benchmark", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    assert "times_as_fast" in result.output and "compact at" in result.output
    assert CliRunner().invoke(main, ["benchmark", "--repeats", "0"]).exit_code == 2


def test_command_on_exports(monkeypatch, sample_manifest):
    monkeypatch.setattr("drywall_seg.data.manifest.prepare", lambda config: sample_manifest)
    monkeypatch.setattr(module, "evaluate", lambda *_: None)
    result = CliRunner().invoke(main, ["benchmark", "--repeats", "1", "--data-root", "elsewhere"])
    assert result.exit_code == 0, result.output
    assert "times_as_long" in result.output and "evaluation" in result.output
