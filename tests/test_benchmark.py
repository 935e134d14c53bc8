from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from drywall_seg import benchmark as module
from drywall_seg import benchmark_clipseg
from drywall_seg.cli import main


@pytest.fixture
def clock(monkeypatch):
    """A clock that a way moves on: by 4, 8, 6 seconds for the first, a twentieth for the second, once warmed up."""
    monkeypatch.setattr(module, "usual_clipseg", lambda photo: lambda: None)
    moments = iter(np.cumsum([t for s in (100, 4, 8, 6) for t in (0, s, 0, s / 20)]).tolist())
    monkeypatch.setattr(benchmark_clipseg.time, "perf_counter", lambda: next(moments))


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


def test_without_exports_the_sample_is_evaluated(monkeypatch, sample_manifest):
    given = []
    monkeypatch.setattr(module, "benchmark_evaluation", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(module, "prepare", lambda config: config.data_root)
    explanation, compare = module.COMPARISONS["evaluation"]
    compare(5, None)
    compare(5, "elsewhere")
    (drawn, repeats), other = given
    assert drawn.rows("test").image_id.tolist() == sample_manifest.rows("test").image_id.tolist()
    assert repeats == 5 and other == ("elsewhere", 5)


def test_onnx_beside_torch(monkeypatch, tmp_path):
    used = []

    class Recorder:
        def __init__(self, name):
            self.name = str(name)

        def predict(self, photo, prompts):
            used.append((self.name, photo.shape, len(prompts)))

    monkeypatch.setattr("drywall_seg.inference.export.export_onnx", lambda name, out: used.append((name, out)) or out)
    monkeypatch.setattr(module.Predictor, "load", Recorder)
    table = module.benchmark_onnx(2, side=96)
    (exported, file), *rest = used
    assert exported == "compact" and rest == [("compact", (96, 96, 3), 2), (str(file), (96, 96, 3), 2)] * 3
    assert table.index.tolist() == ["torch", "onnxruntime"] and table.times_as_fast.iloc[0] == 1


def summary(*seconds):
    rounds = pd.DataFrame({f"way {number}": [s, s] for number, s in enumerate(seconds)})
    return benchmark_clipseg.summarise(rounds, "2 photos").assign(pixels=range(1000, 1000 + len(seconds)))


@pytest.fixture
def fakes(monkeypatch):
    """Every comparison replaced: what each was asked for, by its name."""
    asked = {}
    for name, (explanation, _) in module.COMPARISONS.items():
        compare = lambda *arguments, name=name: asked.update({name: arguments}) or [summary(0.05034, 250)]  # noqa: E731
        monkeypatch.setitem(module.COMPARISONS, name, (explanation, compare))
    monkeypatch.setattr(module, "find_spec", lambda package: object())
    return asked


def test_all_comparisons_in_one_text(fakes):
    text = module.run_all(4, "exports")
    assert fakes == dict.fromkeys(["speed", "prompts", "evaluation", "training", "large", "onnx"], (4, "exports"))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Benchmarks", *(f"## {n}" for n in fakes)]
    assert f"torch {version('torch')}," in text and module.device_name() in text
    table = """
| 2 photos | median_s | fastest_s | slowest_s | pixels |
| --- | --- | --- | --- | --- |
| way 0 | 0.0503 | 0.0503 | 0.0503 | 1,000 |
| way 1 | 250 | 250 | 250 | 1,001 |
"""
    assert text.count(table) == len(fakes) and text.count("\n2 rounds, ") == len(fakes)


def test_one_comparison(fakes):
    assert "## large" in module.run_all(4, only="large") and list(fakes) == ["large"]
    with pytest.raises(ValueError, match="no comparison 'larger'; there are speed, prompts"):
        module.run_all(4, only="larger")


def test_without_onnxruntime_its_comparison_is_left_out(fakes, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda package: None if package == "onnxruntime" else object())
    text = module.run_all(4)
    assert "Left out: onnxruntime is not installed." in text and text.count("Left out") == 1
    assert "onnx" not in fakes and len(fakes) == 5


def test_what_takes_long_is_run_in_few_rounds(monkeypatch):
    asked = []
    for name in ("benchmark", "benchmark_prompts", "benchmark_training", "benchmark_large", "benchmark_memory"):
        monkeypatch.setattr(module, name, lambda repeats, name=name: asked.append((name, repeats)))
    for name in ("speed", "prompts", "training", "large"):
        module.COMPARISONS[name][1](9, None)
    assert [repeats for _, repeats in asked] == [9, 9, 3, 3, 3]


def test_command(fakes, tmp_path):
    file = tmp_path / "benchmarks.md"
    arguments = ["benchmark", "--repeats", "2", "--data-root", "exports", "--only", "prompts", "--out", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert fakes == {"prompts": (2, "exports")}
    assert "| way 1 | 250 |" in result.output and file.read_text(encoding="utf-8").strip() == result.output.strip()


def test_command_refuses_no_rounds(fakes):
    assert CliRunner().invoke(main, ["benchmark", "--repeats", "0"]).exit_code == 2 and not fakes
