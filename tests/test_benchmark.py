import numpy as np
import pytest
from click.testing import CliRunner

from drywall_seg import benchmark as module
from drywall_seg.cli import main


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
    seconds = module._time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert seconds.shape == (3, 2) and (seconds > 0).all()


def test_ratios(monkeypatch):
    monkeypatch.setattr(module, "usual_clipseg", lambda photo: lambda: None)
    monkeypatch.setattr(module, "_time_in_turn", lambda ways, repeats: np.array([[4.0, 0.1], [8.0, 0.4], [6.0, 0.2]]))
    table = module.benchmark(3)
    assert table.median_s.tolist() == [6.0, 0.2] and table.slowest_s.tolist() == [8.0, 0.4]
    assert table.times_as_fast.tolist() == pytest.approx([1.0, 30.0])


def test_command(monkeypatch):
    monkeypatch.setattr(module, "usual_clipseg", lambda photo: lambda: None)
    result = CliRunner().invoke(main, ["benchmark", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    assert "times_as_fast" in result.output and "compact at" in result.output
    assert CliRunner().invoke(main, ["benchmark", "--repeats", "0"]).exit_code == 2
