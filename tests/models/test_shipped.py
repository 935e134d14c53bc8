"""The weights that ship with the package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from drywall_seg.config import PRESETS
from drywall_seg.data.manifest import build_manifest
from drywall_seg.data.splits import photo_hash
from drywall_seg.evaluation.collect import collect_histograms, unseen_rows
from drywall_seg.evaluation.delivery import choose_delivery
from drywall_seg.evaluation.metrics import counts_at, iou
from drywall_seg.inference import Predictor
from drywall_seg.inference.postprocess import PostProcessing
from drywall_seg.models import COMPACT, load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.models.ship import ship
from drywall_seg.prompts import LABELS
from drywall_seg.runs import write_json

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_they_are_small_and_half_precision():
    assert (COMPACT / "model.safetensors").stat().st_size <= 10e6
    state = load_file(COMPACT / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16, torch.int64}
    assert not [name for name in state if "fc" in name]


def test_they_come_with_thresholds_a_presence_cut_and_their_photographs():
    predictor = Predictor.load("compact")
    assert set(predictor.thresholds) == set(LABELS)
    assert all(0 < threshold < 1 for threshold in predictor.thresholds.values())
    assert 0 < predictor.presence_cut < 1
    assert len(predictor.backend.trained_on) > 800
    # Val was scored at 512 px while they were trained, on crops of another size: the weights do not depend on it.
    recipe = json.loads((COMPACT / "config.json").read_text()) | {"image_size": predictor.backend.image_size}
    assert {name: recipe[name] for name in PRESETS["compact_scratch"]} == PRESETS["compact_scratch"]


def test_post_processing_and_what_monitoring_compares_with_are_stored_for_every_label():
    stored = json.loads((COMPACT / "thresholds.json").read_text())
    assert set(stored["postprocessing"]) == set(stored["reference"]) == set(LABELS)
    counts = {"crack": 212, "taping_area": 116, "joint_line": 16}
    assert {label: values["n"] for label, values in stored["reference"].items()} == counts
    predictor = Predictor.load("compact")
    assert predictor.reference == stored["reference"]
    steps = {label: PostProcessing(**values) for label, values in stored["postprocessing"].items()}
    assert predictor.postprocessing == steps


def test_prediction_needs_no_package_of_the_training_and_no_network():
    code = """
import socket, sys
def refuse(*_, **__): raise OSError("network")
socket.socket.connect = refuse
import numpy as np
from drywall_seg.inference import Predictor
Predictor.load("compact").predict(np.zeros((64, 64, 3), np.uint8), ["segment crack"])
print(sorted(m for m in sys.modules if m.startswith(("efficientnet", "transformers"))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_shipping_keeps_the_model(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    segmenter = new_compact(64).eval()
    segmenter.save(run / "checkpoint")
    for name in ("config.json", "environment.json", "history.csv"):
        (run / name).write_text("{}")
    with pytest.raises(ValueError, match=r"photographs\.json"):
        ship(run, tmp_path / "shipped")
    write_json(run / "checkpoint" / "photographs.json", [photo_hash("a")])
    shipped = load_segmenter(ship(run, tmp_path / "shipped"))
    assert shipped.trained_on == {photo_hash("a")}
    assert next(shipped.parameters()).dtype == torch.float32
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (m(image, m.encode_prompts(["segment crack"])) for m in (segmenter, shipped))
    assert torch.allclose(ours, theirs, atol=0.02)
    with torch.no_grad():
        segmenter.decoder.score.bias.fill_(1e6)
    segmenter.save(run / "checkpoint")
    with pytest.raises(ValueError, match=r"decoder\.score\.bias"):
        ship(run, tmp_path / "shipped")


@pytest.mark.skipif(not DATA.is_dir(), reason="the real exports are not here")
def test_they_find_real_cracks_and_joints(tmp_path):
    manifest = build_manifest(DATA, tmp_path / "data")
    predictor = Predictor.load("compact")
    rows, left_out = unseen_rows(predictor, manifest, "val")
    assert left_out == 0
    assert set(map(photo_hash, manifest.rows("train").photo_id)) == predictor.backend.trained_on
    some = rows.groupby("label").head(16)
    kept, histograms = collect_histograms(predictor, manifest, some)
    for label, floor in {"crack": 0.3, "taping_area": 0.45, "joint_line": 0.35}.items():
        counts = counts_at(histograms[(kept.label == label).to_numpy()], predictor.thresholds[label])
        assert np.mean(iou(*counts.T)) > floor, label


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real exports are not here")
def test_what_is_stored_is_what_val_chooses(tmp_path):
    manifest = build_manifest(DATA, tmp_path / "data")
    predictor = Predictor.load("compact", raw=True)
    chosen = choose_delivery(predictor, manifest, unseen_rows(predictor, manifest, "val")[0])
    stored = json.loads((COMPACT / "thresholds.json").read_text())
    assert chosen["postprocessing"] == stored["postprocessing"] and chosen["presence_cut"] == stored["presence_cut"]
    for label, values in chosen["reference"].items():
        for name, quantiles in values.items():
            assert quantiles == pytest.approx(stored["reference"][label][name], rel=0.02, abs=1e-3), (label, name)
