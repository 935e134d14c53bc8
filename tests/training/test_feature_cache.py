import dataclasses
import shutil

import numpy as np
import pytest
import torch

from drywall_seg.data.manifest import build_manifest
from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import new_compact
from drywall_seg.training import feature_cache
from drywall_seg.training.feature_cache import choose_views, entry_file, open_store, stored_features
from drywall_seg.training.fit import fit, training_data
from tests.models.clipseg_folders import tiny_clipseg_folder
from tests.training.runs import config_of, same_weights, small


@pytest.fixture
def manifest(sample_root, tmp_path):
    """Of its own, beside which activations can be stored; the photos are copies that may be changed."""
    shutil.copytree(sample_root, tmp_path / "photos")
    return small(build_manifest(tmp_path / "photos", tmp_path / "processed"))


@pytest.fixture
def tiny(tmp_path):
    return load_segmenter(str(tiny_clipseg_folder(tmp_path / "tiny")), 64)


def decoder_config(tmp_path, **settings):
    return config_of(**{"model": str(tmp_path / "tiny"), "stored_views": 2, "epochs": 1, **settings})


def count_encoded(segmenter, monkeypatch):
    encoded = []
    encode = segmenter.encode_images
    monkeypatch.setattr(segmenter, "encode_images", lambda pixels: encoded.append(len(pixels)) or encode(pixels))
    return encoded


def views_of(data, number=6):
    return [(image_id, view) for image_id in list(data.by_image)[:number] for view in (0, 1)]


def test_what_is_stored_is_what_the_encoder_gives_but_for_half_precision(manifest, tiny, tmp_path, monkeypatch):
    data = training_data(tiny, manifest, decoder_config(tmp_path))
    store, views = open_store(tiny, data), views_of(data)
    encoded = count_encoded(tiny, monkeypatch)
    new = stored_features(store, tiny, data, views)
    assert len(encoded) == len(views)
    read = stored_features(store, tiny, data, views)
    assert len(encoded) == len(views)  # none again
    pixels = torch.from_numpy(np.stack([data.pixels(*view) for view in views]))
    plain = tiny.encode_images(pixels)
    for one, two, exact in zip(new, read, plain, strict=True):
        assert torch.equal(one, two) and one.dtype == torch.float32 and one.shape == exact.shape
        assert ((one - exact).abs() <= 2**-11 * exact.abs() + 1e-5).all()  # half of half precision's last bit
    views_differ = [not torch.equal(new[0][i], new[0][i + 1]) for i in range(0, len(views), 2)]
    assert sum(views_differ) >= len(views_differ) - 1


def test_logits_and_gradients_of_the_plain_path(manifest, tiny, tmp_path):
    """Encoder cut off, no gradient in it, sentences cached: as Hugging Face's whole model in training."""
    from drywall_seg.training.losses import segmentation_losses
    from tests.models.clipseg_folders import TINY, random_model

    data = training_data(tiny, manifest, decoder_config(tmp_path))
    views = views_of(data, 2)
    pixels = torch.from_numpy(np.stack([data.pixels(*view) for view in views]))
    prompts = ["segment crack"] * len(views)
    target = (torch.arange(64 * 64).reshape(1, 64, 64) % 7 < 2).float().expand(len(views), -1, -1)
    valid = torch.ones_like(target, dtype=torch.bool)
    plain = random_model(TINY, tiny.model.config.text_config.vocab_size)  # with all its layers
    tokens = tiny.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt")
    wanted = plain(**tokens, pixel_values=pixels, interpolate_pos_encoding=True).logits
    segmentation_losses(wanted, target, valid).mean().backward()
    gradients = {name: p.grad for name, p in plain.decoder.named_parameters()}
    embeddings = tiny.encode_prompts(prompts)
    store = open_store(tiny, data)
    for features, bound in ((tiny.encode_images(pixels), 1e-4), (stored_features(store, tiny, data, views), 1e-2)):
        tiny.zero_grad()
        logits = tiny.decode(features, embeddings)
        segmentation_losses(logits, target, valid).mean().backward()
        assert (logits - wanted).norm() <= bound * wanted.norm()
        for name, parameter in tiny.model.decoder.named_parameters():
            assert (parameter.grad - gradients[name]).norm() <= bound * gradients[name].norm() + 1e-7, name


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:10] + bytes([b[10] ^ 1]) + b[11:]])
def test_a_damaged_entry_is_found_and_made_anew(manifest, tiny, tmp_path, damage, monkeypatch, capsys):
    data = training_data(tiny, manifest, decoder_config(tmp_path))
    store, views = open_store(tiny, data), views_of(data, 3)
    right = stored_features(store, tiny, data, views)
    path = entry_file(store, data, *views[2])
    path.write_bytes(damage(path.read_bytes()))
    encoded = count_encoded(tiny, monkeypatch)
    again = stored_features(store, tiny, data, views)
    assert len(encoded) == 1 and all(torch.equal(a, b) for a, b in zip(again, right, strict=True))
    stored_features(store, tiny, data, views)
    assert len(encoded) == 1


def test_no_entry_is_taken_for_another(manifest, tiny, tmp_path):
    config = decoder_config(tmp_path)
    data = training_data(tiny, manifest, config)
    image_id = next(iter(data.by_image))
    files = {entry_file(open_store(tiny, data), data, image_id, view) for view in (0, 1)}
    for changed in (
        {"seed": 7},
        {"train_size": 96},
        {"crop_min": 0.7},
        {"color_strength": 0.1},
        {"degrade_share": 0.5},
    ):
        config_ = dataclasses.replace(config, **changed)
        other = training_data(tiny, manifest, config_)
        files.add(entry_file(open_store(tiny, other), other, image_id, 0))
    for changed in ({"learning_rate": 0.1}, {"negative_share": 0.4}, {"dice_weight": 1.0}):  # these change no pixel
        config_ = dataclasses.replace(config, **changed)
        other = training_data(tiny, manifest, config_)
        files.add(entry_file(open_store(tiny, other), other, image_id, 0))
    assert len(files) == 7
    with torch.no_grad():
        tiny.model.clip.vision_model.pre_layrnorm.bias[0] += 1e-3  # another checkpoint
    files.add(entry_file(open_store(tiny, data), data, image_id, 0))
    photo = manifest.image_file(data.by_image[image_id])  # another photo of the same name
    shutil.copy(manifest.image_file(data.by_image[list(data.by_image)[-1]]), photo)
    files.add(entry_file(open_store(tiny, data), data, image_id, 0))
    assert len(files) == 9
    tiny.model.config.extract_layers = [1, 1, 2]  # other layers of the same weights
    assert open_store(tiny, data).folder.name not in {path.parts[-3] for path in files}


def test_training_encodes_each_view_once_and_never_again(manifest, tiny, tmp_path, monkeypatch):
    config = decoder_config(tmp_path, epochs=4, negative_share=0.3, mine_every=1)
    n_images = manifest.rows("train").image_id.nunique()
    calls = []
    encode = feature_cache._encode
    monkeypatch.setattr(feature_cache, "_encode", lambda *a: calls.append(a[2]) or encode(*a))
    fit(tiny, manifest, config, tmp_path / "first")
    assert len(calls) == len(set(calls)) <= 2 * n_images
    before = len(calls)
    fit(load_segmenter(str(tmp_path / "tiny"), 64), manifest, config, tmp_path / "second")  # reads what the first wrote
    assert len(calls) == before
    assert same_weights(tmp_path / "first", tmp_path / "second")


def test_a_full_disk_costs_time_and_nothing_else(manifest, tiny, tmp_path, monkeypatch, capsys):
    config = decoder_config(tmp_path, epochs=2)
    fit(tiny, manifest, config, tmp_path / "stored")
    shutil.rmtree(manifest.folder / "features")

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "whole_file", full)
    fit(load_segmenter(str(tmp_path / "tiny"), 64), manifest, config, tmp_path / "full")
    assert "No space left on device" in capsys.readouterr().out
    assert same_weights(tmp_path / "stored", tmp_path / "full")


def test_an_activation_beyond_half_precision_is_refused(manifest, tiny, tmp_path):
    data = training_data(tiny, manifest, decoder_config(tmp_path))
    store = open_store(tiny, data)
    with torch.no_grad():
        tiny.model.clip.vision_model.embeddings.class_embedding[0] = 1e6
        tiny.model.clip.vision_model.pre_layrnorm.weight.fill_(1e6)
    with pytest.raises(ValueError, match="view 1: an activation is beyond half precision"):
        stored_features(store, tiny, data, [(next(iter(data.by_image)), 1)])


def test_views_are_stored_where_it_pays(manifest, tiny, tmp_path, monkeypatch):
    data = training_data(tiny, manifest, decoder_config(tmp_path))
    per_view = len(data.by_image) * 3 * 17 * 32 * 2
    for free, views in ((100 * per_view, 4), (2 * 3 * per_view, 3), (2 * per_view - 2, 0)):
        monkeypatch.setattr(
            feature_cache.shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(0, 0, free)
        )
        assert choose_views(tiny, data, None) == views
        assert choose_views(tiny, data, 2) == 2  # as it was asked for
    monkeypatch.undo()
    monkeypatch.setattr(type(tiny), "device", torch.device("cuda"))
    assert (choose_views(tiny, data, None), choose_views(tiny, data, 2)) == (0, 2)  # there reading is slower
    monkeypatch.undo()
    tiny.trainable_parameters("decoder+1")
    assert choose_views(tiny, data, None) == 0
    with pytest.raises(ValueError, match="stored_views is 2, but trainable lets the encoder train"):
        open_store(tiny, data)
    compact = new_compact(64)
    compact.trainable_parameters("decoder")
    assert choose_views(compact, training_data(compact, manifest, config_of()), 1) == 1
