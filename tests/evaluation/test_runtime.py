import json

import pandas as pd
import pytest

from drywall_seg.evaluation.runtime import footprint, measure_runtime
from drywall_seg.inference import Predictor
from drywall_seg.inference.postprocess import PostProcessing
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models.compact import new_compact


@pytest.fixture(scope="module")
def predictor():
    return Predictor(TorchBackend(new_compact(64)))


def test_each_step_is_timed(predictor, sample_manifest, monkeypatch):
    encoded = []
    original = predictor.backend.encode_images
    monkeypatch.setattr(predictor.backend, "encode_images", lambda x: encoded.append(len(x)) or original(x))
    photos = [sample_manifest.image_file(row) for row in sample_manifest.table.head(3).itertuples()]
    table = measure_runtime(predictor, photos, (1, 4), n_batches=2)
    assert encoded == [1, 1, 1, 4, 4, 4]  # the first of each warms up
    assert (
        table.groupby("batch_size").step.agg(list).tolist()
        == [["read", "model", "resize and threshold", "write", "all"]] * 2
    )
    for _, rows in table.groupby("batch_size"):
        median = rows.set_index("step").median_s
        assert (median > 0).all() and median["model"] < median["all"]
        assert (rows.p95_s >= rows.median_s).all()


def test_post_processing_is_timed_too(predictor, sample_manifest, monkeypatch):
    steps, done = PostProcessing(min_area=0.5), []
    monkeypatch.setattr("drywall_seg.inference.predict.postprocess", lambda mask, s: done.append(s) or mask)
    photos = [sample_manifest.image_file(row) for row in sample_manifest.table.head(1).itertuples()]
    measure_runtime(Predictor(predictor.backend, postprocessing={"crack": steps}), photos, (1,), n_batches=1)
    assert done == [steps] * 2


def test_without_photos_there_is_nothing_to_time(predictor):
    assert measure_runtime(predictor, []).empty


def test_footprint(predictor, tmp_path):
    bare = footprint(predictor, tmp_path)
    assert bare["checkpoint_bytes"] is None and bare["training_seconds"] is None
    assert bare["image_size"] == 64 and bare["peak_memory_bytes"] > 50e6
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"12345")
    pd.DataFrame({"epoch": [1, 2], "seconds": [1.5, 2.0]}).to_csv(tmp_path / "history.csv")
    full = footprint(predictor, tmp_path)
    assert full["checkpoint_bytes"] == 5 and full["training_seconds"] == 3.5
    json.dumps(full)
