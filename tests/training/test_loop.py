import numpy as np
import pytest
import torch

from drywall_seg.inference.torch_backend import default_device
from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.training import loop
from drywall_seg.training.fit import fit, training_data
from drywall_seg.training.state import start_accelerator, start_training
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import config_of, small, weights


def trained(segmenter, manifest, folder, **settings):
    """Trains two epochs and returns the losses of the steps and the weights."""
    fit(segmenter, manifest, config_of(**{"epochs": 2, "batch_size": 8, **settings}), folder)
    steps = np.loadtxt(folder / "steps.csv", delimiter=",", skiprows=1)[:, 1]
    return steps, weights(folder)


def close(first, second, tolerance):
    return np.allclose(first[0], second[0], rtol=tolerance) and all(
        torch.allclose(tensor, second[1][name], rtol=tolerance, atol=tolerance) for name, tensor in first[1].items()
    )


@pytest.mark.parametrize("stored_views", [0, 1])
def test_micro_batches_of_the_tiny_decoder_add_up_to_the_batch(sample_manifest, tmp_path, stored_views):
    base, manifest = tiny_clipseg_folder(tmp_path / "tiny"), small(sample_manifest, 20)  # batches of 8, 8 and 4
    runs = [
        trained(
            load_segmenter(str(base), 64), manifest, tmp_path / str(size),
            model=str(base), micro_batch=size, stored_views=stored_views, learning_rate=1e-4,
        )
        for size in (8, 3, 1)
    ]  # fmt: skip
    tolerance = 1e-5 if default_device() == "cpu" else 2e-3  # in half precision sums differ with the batch's shape
    assert close(runs[0], runs[1], tolerance) and close(runs[0], runs[2], tolerance)
    assert not np.allclose(runs[0][0][:3], runs[0][0][3:], rtol=1e-3)  # it did learn


def test_with_the_compact_model_only_frozen_norms_add_up_and_the_run_says_so(sample_manifest, tmp_path, capsys):
    manifest = small(sample_manifest, 20)
    losses = {}
    for freeze in (True, False):
        for size in (8, 4):
            folder = tmp_path / f"{freeze}{size}"
            run = trained(new_compact(64), manifest, folder, micro_batch=size, freeze_norms=freeze, learning_rate=1e-4)
            losses[freeze, size] = run
            said = "BatchNorms see 4 images at once: not the same as batches of 8" in capsys.readouterr().out
            assert said == (not freeze and size == 4)
    assert close(losses[True, 8], losses[True, 4], 1e-4)
    assert not close(losses[False, 8], losses[False, 4], 1e-3)


def test_where_memory_runs_out_fewer_images_are_taken_at_once(sample_manifest, tmp_path, monkeypatch, capsys):
    base, manifest = tiny_clipseg_folder(tmp_path / "tiny"), small(sample_manifest, 20)
    settings = {"model": str(base), "stored_views": 0, "learning_rate": 1e-4}
    whole = trained(load_segmenter(str(base), 64), manifest, tmp_path / "whole", **settings)
    segmenter = load_segmenter(str(base), 64)
    decode, sizes = segmenter.decode, []

    def decode_little(features, embeddings):
        if segmenter.training:
            sizes.append(len(embeddings))
            if len(embeddings) > 2 or len(sizes) == 4:  # and once more after a part of the batch was done
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return decode(features, embeddings)

    monkeypatch.setattr(segmenter, "decode", decode_little)
    halved = trained(segmenter, manifest, tmp_path / "halved", **settings)
    assert sizes[:5] == [8, 4, 2, 2, 1] and set(sizes[5:]) == {1}
    said = capsys.readouterr().out
    assert all(f"out of memory: going on with {n} images at once, the batch stays as it is" in said for n in (4, 2, 1))
    assert close(whole, halved, 1e-5)


def test_a_failed_attempt_leaves_no_trace_in_batch_norm(sample_manifest, tmp_path, monkeypatch, capsys):
    manifest, segmenter = small(sample_manifest, 8), new_compact(64)
    decode, calls = segmenter.decode, []

    def decode_or_fail(features, embeddings):
        if segmenter.training:
            calls.append(len(embeddings))
            if len(calls) == 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return decode(features, embeddings)

    monkeypatch.setattr(segmenter, "decode", decode_or_fail)
    halved = trained(segmenter, manifest, tmp_path / "halved")
    assert calls == [8, 4, 4, 4, 4]
    said = "4 images at once, the batch stays as it is, but 49 BatchNorms see no more than that"
    assert said in capsys.readouterr().out
    quarter = trained(new_compact(64), manifest, tmp_path / "quarter", micro_batch=4)
    assert (halved[0] == quarter[0]).all() and all(torch.equal(t, quarter[1][n]) for n, t in halved[1].items())


def test_what_one_image_needs_too_much_for_is_an_error(sample_manifest, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    segmenter = new_compact(64)
    monkeypatch.setattr(segmenter, "decode", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fit(segmenter, small(sample_manifest, 4), config_of(epochs=1), tmp_path)


def test_gradients_are_clipped_and_rates_follow_the_schedule(sample_manifest, monkeypatch):
    config = config_of(epochs=2, batch_size=8, clip_norm=1e-3, trainable="all", encoder_rate_share=0.5)
    accelerator = start_accelerator()
    segmenter = new_compact(64).to(accelerator.device)
    manifest = small(sample_manifest, 16)
    training = start_training(segmenter, config, training_data(segmenter, manifest, config), accelerator)
    assert training.n_steps == 4
    loop.set_training_mode(training)
    batch = torch.utils.data.default_collate([training.dataset[i] for i in range(8)])
    for factor in (1, 1, 0.5 * (1 + np.cos(np.pi / 3))):  # one step of warm-up, then the cosine's first two of four
        training.losses.append(loop.optimiser_step(training, batch, 1 / 8))
        norm = torch.stack([p.grad.norm() for p in segmenter.parameters()]).norm().item()
        assert norm == pytest.approx(1e-3, rel=1e-2)
        rates = [group["lr"] for group in training.optimizer.param_groups]
        assert rates == pytest.approx([0.5 * factor * config.learning_rate, factor * config.learning_rate])


def test_no_patience_left_ends_the_training(sample_manifest, tmp_path, monkeypatch):
    scores = iter([0.1, 0.4, 0.2, 0.4, 0.9])

    def validate(predictor, manifest, config, **_):
        value = next(scores)
        return {"crack": value}, {"overall": {"mean_iou": value, "mean_dice": value}, "labels": {}}

    monkeypatch.setattr("drywall_seg.training.fit.score_validation", validate)
    history = fit(new_compact(64), small(sample_manifest, 4), config_of(epochs=5, patience=2), tmp_path)
    assert history.epoch.tolist() == [1, 2, 3, 4] and history.best.tolist() == [True, True, False, False]


@pytest.mark.parametrize(("capability", "kind"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), (None, "no")])
def test_precision_follows_the_device(monkeypatch, capability, kind):
    asked = {}
    monkeypatch.setattr("drywall_seg.training.state.default_device", lambda: "cuda" if capability else "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr("drywall_seg.training.state.Accelerator", lambda **settings: asked.update(settings))
    start_accelerator()
    assert asked.pop("kwargs_handlers") and asked == {"mixed_precision": kind, "cpu": capability is None}
