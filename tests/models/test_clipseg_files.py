import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

from drywall_seg.models import load_segmenter
from drywall_seg.models.clipseg_files import load_clipseg
from drywall_seg.models.weights import hash_weights
from tests.faults.table import REFUSED
from tests.models.clipseg_folders import MEAN, STD, bpe_file, tiny_clipseg_folder, write_tokenizer

PROMPTS = ["segment crack", "trace joint line"]
REVISION = "0123456789abcdef0123456789abcdef01234567"
real_vocabulary = pytest.mark.skipif(bpe_file() is None, reason="open_clip (its vocabulary file) is not installed")


@torch.no_grad()
def logits(segmenter):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return segmenter.eval()(images, segmenter.encode_prompts(PROMPTS))


def same(segmenter, other):
    """Weights to the bit; logits nearly: a kernel's rounding may follow the alignment of memory."""
    mine, theirs = segmenter.state_dict(), other.state_dict()
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
        return False
    return torch.allclose(logits(segmenter), logits(other), rtol=1e-4, atol=1e-5)


@pytest.fixture
def hub_copy(hub_folder, tmp_path):
    """A folder as the hub's, to be spoiled."""
    return Path(shutil.copytree(hub_folder, tmp_path / "hub"))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_as_the_hubs(hub_folder, tiny):
    assert {p.name for p in hub_folder.iterdir()} == {
        "config.json",
        "merges.txt",
        "preprocessor_config.json",
        "pytorch_model.bin",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    assert "clip.text_model.embeddings.position_ids" in torch.load(hub_folder / "pytorch_model.bin", weights_only=True)
    assert tiny.model.config.text_config.eos_token_id == 2 and tiny.model.config.text_config.bos_token_id == 0
    assert (tiny.image_size, tiny.mean, tiny.std) == (64, tuple(MEAN), tuple(STD))
    assert not tiny.training and load_segmenter(hub_folder, image_size=96).image_size == 96
    with pytest.raises(ValueError, match="images of 100 pixels"):
        load_segmenter(hub_folder, image_size=100)
    model = CLIPSegForImageSegmentation.from_pretrained(hub_folder)
    tokens = CLIPTokenizer.from_pretrained(hub_folder)(PROMPTS, padding=True, return_tensors="pt")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(**tokens, pixel_values=images).logits
    assert (logits(tiny) - expected).abs().max() < 1e-5 * expected.abs().max()


@real_vocabulary
@pytest.mark.parametrize(
    ("sentence", "ids"),  # from open_clip's own tokenizer, run apart
    [
        ("segment crack", [15615, 10334]),
        ("segment taping area", [15615, 24355, 2445]),
        ("segment joint/tape", [15615, 6640, 270, 5749]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        (
            "Segment  CRACK's  édge 裂缝 2021!",
            [15615, 10334, 568, 3459, 1360, 164, 96, 224, 163, 120, 507, 273, 271, 273, 272, 256],
        ),
        ("crack " * 100, [10334] * 75),
    ],
)
def test_tokens_are_clips(tiny, sentence, ids):
    seen = []
    tiny.model.clip.text_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    tiny.encode_prompts([sentence])
    padding = [49407] * (76 - len(ids))
    assert seen[0].tolist() == [[49406, *ids, *padding]]


def test_a_made_up_vocabulary(tmp_path):
    segmenter = load_segmenter(tiny_clipseg_folder(tmp_path / "hub", real=False))
    first, second = segmenter.encode_prompts(["segment crack", "dog"])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("size", [64, {"height": 64, "width": 64}, {"shortest_edge": 64}])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_ways_to_state_the_preprocessing(hub_copy, size, name):
    stated = {"size": size, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (hub_copy / "preprocessor_config.json").unlink()
    (hub_copy / name).write_text(json.dumps({"image_processor": stated} if name.startswith("processor") else stated))
    segmenter = load_segmenter(hub_copy)
    assert (segmenter.image_size, segmenter.mean, segmenter.std) == (64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_safetensors_instead_of_the_pickle(hub_copy, tiny):
    model = CLIPSegForImageSegmentation.from_pretrained(hub_copy)
    (hub_copy / "pytorch_model.bin").unlink()
    model.save_pretrained(hub_copy)
    assert same(load_segmenter(hub_copy), tiny)


def test_half_precision_weights_are_loaded_in_full(hub_copy):
    model = CLIPSegForImageSegmentation.from_pretrained(hub_copy).half()
    (hub_copy / "pytorch_model.bin").unlink()
    model.save_pretrained(hub_copy)
    assert {p.dtype for p in load_segmenter(hub_copy).parameters()} == {torch.float32}


def train(segmenter, part):
    segmenter.trainable_parameters(part)
    with torch.no_grad():
        for weight in segmenter.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))


def save(segmenter, folder):
    folder.mkdir()
    segmenter.save(folder)
    return json.loads((folder / "segmenter.json").read_text())


def test_a_trained_decoder(tiny, hub_folder, tmp_path):
    train(tiny, "decoder")
    tiny.image_size, tiny.mean = 96, (0.5, 0.5, 0.5)
    settings = save(tiny, tmp_path / "one")
    assert settings["base"].pop("weights") == hash_weights(tiny.model.clip)
    assert settings["base"] == {"name": str(hub_folder), "revision": None}
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"model.safetensors", "segmenter.json"}
    size = sum(p.numel() for p in tiny.model.decoder.parameters()) * 4
    assert size < (tmp_path / "one/model.safetensors").stat().st_size < size + 10_000
    loaded = load_segmenter(tmp_path / "one")
    assert (loaded.image_size, loaded.mean, loaded.training) == (96, (0.5, 0.5, 0.5), False)
    assert same(loaded, tiny)
    assert not same(loaded, load_segmenter(hub_folder))
    assert save(loaded, tmp_path / "two")["base"]["name"] == settings["base"]["name"]  # and it can be trained on
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("then", ["all", "decoder"])
def test_everything_trained(hub_copy, tmp_path, then):
    segmenter = load_segmenter(hub_copy)
    train(segmenter, "all")
    segmenter.trainable_parameters(then)  # going on with the decoder alone does not bring the base's CLIP back
    settings = save(segmenter, tmp_path / "one")
    assert settings["base"] is None and not {"transformers_version", "dtype"} & settings["config"].keys()
    shutil.rmtree(hub_copy)
    loaded = load_segmenter(tmp_path / "one")
    assert same(loaded, segmenter)
    assert len(loaded.model.clip.vision_model.encoder.layers) == 3
    train(loaded, "decoder")
    assert save(loaded, tmp_path / "two")["base"] is None
    assert same(load_segmenter(tmp_path / "two"), loaded)


def test_other_weights_put_in_are_saved_whole(tiny, tmp_path):
    other = load_segmenter(tiny_clipseg_folder(tmp_path / "other", seed=5))
    tiny.load_state_dict(tiny.state_dict())
    assert save(tiny, tmp_path / "same")["base"] is not None
    tiny.load_state_dict(other.state_dict())
    assert save(tiny, tmp_path / "one")["base"] is None
    assert same(load_segmenter(tmp_path / "one"), other)


def test_bytes_depend_on_no_path(tmp_path):
    for name in ("a", "b/c"):
        segmenter = load_segmenter(tiny_clipseg_folder(tmp_path / name / "hub"))
        segmenter.trainable_parameters("all")
        save(segmenter, tmp_path / name / "run")
    files = sorted(p.name for p in (tmp_path / "a/run").iterdir())
    assert files == ["model.safetensors", "segmenter.json", "tokenizer.json", "tokenizer_config.json"]
    for name in files:
        written = (tmp_path / "a/run" / name).read_bytes()
        assert written == (tmp_path / "b/c/run" / name).read_bytes()
        assert str(tmp_path).encode() not in written


def test_no_pickle_is_written_or_read(tiny, tmp_path, monkeypatch):
    train(tiny, "all")
    save(tiny, tmp_path / "run")

    def refuse(*_, **__):
        pytest.fail("something was unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    logits(load_segmenter(tmp_path / "run"))


def test_relative_base_from_elsewhere(hub_copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segmenter = load_segmenter("hub")
    save(segmenter, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert same(load_segmenter("../run"), segmenter)
    shutil.rmtree(hub_copy)
    with pytest.raises(ValueError, match=f"segmenter.json: its base {hub_copy} is no longer there"):
        load_segmenter(tmp_path / "run")


def test_hub_id_and_revision(hub_folder, tmp_path, monkeypatch, tiny):
    """A download cache as huggingface_hub lays it out, and no network."""
    repository = tmp_path / "cache/models--CIDAS--clipseg-rd64-refined"
    shutil.copytree(hub_folder, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(REVISION)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    segmenter = load_segmenter("CIDAS/clipseg-rd64-refined")
    assert segmenter.base == {"name": "CIDAS/clipseg-rd64-refined", "revision": REVISION}
    assert same(segmenter, tiny)
    train(segmenter, "decoder")
    assert save(segmenter, tmp_path / "run")["base"].items() > segmenter.base.items()
    (repository / "refs/main").write_text("f" * 40)  # the hub moves on, the fine-tune does not
    assert same(load_segmenter(tmp_path / "run"), segmenter)
    with pytest.raises(OSError, match="CIDAS/other|offline|connect"):
        load_segmenter("CIDAS/other")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def spoil_weights(folder):
    truncate(folder / "pytorch_model.bin")


def spoil_with_trap(folder):
    torch.save({"trap": pytest.fail}, folder / "pytorch_model.bin")


def spoil_with_pickle_for_safetensors(folder):
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")


def spoil_with_short_safetensors(folder):
    CLIPSegForImageSegmentation.from_pretrained(folder).save_pretrained(folder)
    truncate(folder / "model.safetensors")


def spoil_by_leaving_out(folder):
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del state["clip.text_projection.weight"]
    torch.save(state, folder / "pytorch_model.bin")


def spoil_shapes(folder):
    edit(folder / "config.json", reduce_dim=32)


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights, "pytorch_model.bin: cannot be read"),
        (spoil_with_trap, "pytorch_model.bin: cannot be read"),
        (spoil_with_pickle_for_safetensors, "model.safetensors: cannot be read"),
        (spoil_with_short_safetensors, "model.safetensors: cannot be read"),
        (spoil_by_leaving_out, r"pytorch_model.bin: lacks 1 weights of CLIPSeg \(such as clip.text_projection.weight"),
        (spoil_shapes, "pytorch_model.bin: (cannot be read|lacks)"),
        (lambda folder: (folder / "pytorch_model.bin").unlink(), "hub: holds neither model.safetensors nor pytorch"),
        (lambda folder: (folder / "vocab.json").unlink(), "hub: holds neither tokenizer.json nor both"),
        (lambda folder: (folder / "merges.txt").unlink(), "hub: holds neither tokenizer.json nor both"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "hub: holds no preprocessor_config.json"),
        (lambda folder: edit(folder / "config.json", model_type="bert"), "config.json .*model_type clipseg"),
        (lambda folder: edit(folder / "preprocessor_config.json", size={"height": 1, "width": 2}), "one side"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    ],
)
def test_spoiled_folders(hub_copy, spoil, message):
    spoil(hub_copy)
    with pytest.raises(ValueError, match=message):
        load_segmenter(hub_copy)


@pytest.mark.fault("checkpoints", REFUSED)
def test_a_tokenizer_that_knows_more_than_the_model(tmp_path):
    folder = tiny_clipseg_folder(tmp_path / "hub", real=False)
    (folder / "merges.txt").write_text("#version: 0.2\nc r\n")
    edit(folder / "vocab.json", unheard=514 + 3)
    with pytest.raises(ValueError, match="its tokenizer knows"):
        load_clipseg(str(folder))


@pytest.mark.fault("checkpoints", REFUSED)
def test_spoiled_fine_tunes(tiny, tmp_path):
    save(tiny, tmp_path / "run")
    path = tmp_path / "run/model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=f"{path}: cannot be read as safetensors"):
        load_segmenter(tmp_path / "run")
    path.write_bytes(whole)
    base = json.loads((tmp_path / "run/segmenter.json").read_text())["base"]
    edit(tmp_path / "run/segmenter.json", base={**base, "name": str(tiny_clipseg_folder(tmp_path / "b"))})
    load_segmenter(tmp_path / "run")  # the same weights in another place
    other = str(tiny_clipseg_folder(tmp_path / "c", seed=5))
    for changed in ({**base, "name": other}, {"name": base["name"], "revision": None}):
        edit(tmp_path / "run/segmenter.json", base=changed)
        message = rf"segmenter.json: its decoder was trained on another base than what {changed['name']} now holds"
        with pytest.raises(ValueError, match=message):
            load_segmenter(tmp_path / "run")
    edit(tmp_path / "run/segmenter.json", base=base)
    train(tiny, "all")
    save(tiny, tmp_path / "whole")
    shutil.copy(tmp_path / "whole/model.safetensors", path)
    with pytest.raises(ValueError, match=rf"{path}: not the weights of this model: \d+ missing"):
        load_segmenter(tmp_path / "run")


def test_tokenizer_files(tmp_path):
    assert write_tokenizer(tmp_path, real=False) == 2 * 256 + 3 + 2
