import pytest
import torch

from drywall_seg.models import load_segmenter
from drywall_seg.models.compact import WIDTH, new_compact


@pytest.fixture(scope="module")
def compact():
    return new_compact().eval()


def images(size=64, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


@torch.no_grad()
def logits(segmenter, prompts=("segment crack", "segment taping area"), size=64):
    return segmenter(images(size, len(prompts)), segmenter.encode_prompts(list(prompts)))


def same(segmenter, other):
    """Weights to the bit; logits nearly: a kernel's rounding may follow the alignment of memory."""
    mine, theirs = segmenter.state_dict(), other.state_dict()
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
        return False
    return torch.allclose(logits(segmenter), logits(other), rtol=1e-4, atol=1e-5)


def test_size(compact):
    assert 3.3e6 < sum(p.numel() for p in compact.parameters()) < 3.5e6
    assert compact.image_size == 320 and not compact.training
    assert compact.mean == pytest.approx((127 / 255,) * 3) and compact.std == pytest.approx((128 / 255,) * 3)


@pytest.mark.parametrize("size", [32, 96, 160])
def test_multiples_of_32(compact, size):
    assert logits(compact, size=size).shape == (2, size, size)


@pytest.mark.parametrize("shape", [(48, 48), (64, 96)])
def test_other_sizes_are_refused(compact, shape):
    with pytest.raises(ValueError, match="32 divides"):
        compact.encode_images(torch.zeros(1, 3, *shape))
    if shape[0] == shape[1]:
        with pytest.raises(ValueError, match="images of 48 pixels"):
            load_segmenter("compact", image_size=shape[0])


def test_any_sentence(compact):
    sentences = ["a", "segment crack", "裂缝", "трещина в стене", "schmaler Riß", "x" * 3000, "🧱 wall"]
    embeddings = compact.encode_prompts(sentences)
    assert embeddings.shape == (len(sentences), 96) and torch.isfinite(embeddings).all()
    assert len({tuple(row.tolist()) for row in embeddings}) == len(sentences)


def test_a_sentence_alone_and_among_others(compact):
    among = compact.embed_prompts(["segment crack", "trace joint line", "dog"])
    for row, text in zip(among, ["segment crack", "trace joint line", "dog"], strict=True):
        assert torch.allclose(row, compact.embed_prompts([text])[0], atol=1e-6)


def test_case_punctuation_and_spacing_do_not_matter(compact):
    plain, odd = compact.encode_prompts(["segment joint tape", "  Segment Joint/TAPE?! "])
    assert torch.equal(plain, odd)
    assert not torch.equal(*compact.encode_prompts(["segment joint tape", "segment jointtape"]))


def test_seed():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (new_compact(seed=seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if name.endswith("weight") and first[name].ndim > 1]
    assert weights and not any(torch.equal(first[name], other[name]) for name in weights)


def test_encode_once_decode_for_many(compact):
    calls = []
    handle = compact.encoder.register_forward_hook(lambda *_: calls.append(1))
    prompts = ["segment crack", "segment taping area", "trace joint line"]
    with torch.no_grad():
        embeddings = compact.encode_prompts(prompts)
        features = compact.encode_images(images(batch=1))
        decoded = torch.cat([compact.decode(features, row[None]) for row in embeddings])
        handle.remove()
        assert calls == [1]
        whole = compact(images(batch=1).expand(3, -1, -1, -1), embeddings)
    assert torch.allclose(decoded, whole, atol=1e-5)
    assert (decoded[0] - decoded[1]).abs().max() > 1e-4  # the sentence matters


def test_features_are_batch_first(compact):
    with torch.no_grad():
        features = compact.encode_images(images(64, 3))
    assert [tuple(f.shape) for f in features] == [
        (3, 24, 16, 16),
        (3, 40, 8, 8),
        (3, 112, 4, 4),
        (3, 320, 2, 2),
    ]


def test_save_and_load(tmp_path):
    segmenter = new_compact(96, seed=3)
    segmenter.trainable_parameters("all")
    segmenter.train()
    segmenter(images(), segmenter.encode_prompts(["a", "b"]))  # moves BatchNorm's averages
    segmenter.eval()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        segmenter.save(tmp_path / name)
    loaded = load_segmenter(tmp_path / "one")
    assert loaded.image_size == 96 and not loaded.training
    assert load_segmenter(tmp_path / "one", image_size=64).image_size == 64
    assert same(loaded, segmenter)
    assert not same(loaded, new_compact(seed=3).eval())
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["model.safetensors", "segmenter.json"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_frozen_encoder_never_moves(tmp_path):
    segmenter = new_compact()
    trained = segmenter.trainable_parameters("decoder")
    assert len(trained) == len(list(segmenter.text.parameters())) + len(list(segmenter.decoder.parameters()))
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    segmenter.train()
    optimiser = torch.optim.SGD(trained, lr=0.1)
    segmenter(images(), segmenter.encode_prompts(["crack", "tape"])).square().mean().backward()
    optimiser.step()
    moved = {name for name, tensor in segmenter.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("encoder.") for name in moved)
    assert any(name.startswith("text.") for name in moved) and "decoder.head.1.running_mean" in moved
    assert all(p.grad is None for p in segmenter.encoder.parameters())


def test_the_first_stages_can_stay_as_they_are():
    segmenter = new_compact()
    trained = {id(p) for p in segmenter.trainable_parameters("decoder+5")}
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    segmenter.train()
    optimiser = torch.optim.SGD(segmenter.parameters(), lr=0.1)
    segmenter(images(), segmenter.encode_prompts(["crack", "tape"])).square().mean().backward()
    optimiser.step()
    moved = {name for name, tensor in segmenter.state_dict().items() if not torch.equal(tensor, before[name])}
    still = ("encoder.stem.", "encoder.stages.0.", "encoder.stages.1.")
    assert not any(name.startswith(still) for name in moved)
    assert all(any(name.startswith(f"encoder.stages.{stage}.") for name in moved) for stage in range(2, 7))
    assert trained == {id(p) for name, p in segmenter.named_parameters() if not name.startswith(still)}


def test_folded_it_says_the_same_and_stays_as_it_was():
    segmenter = new_compact(64).train()
    segmenter(images(), segmenter.encode_prompts(["a", "b"]))  # moves BatchNorm's averages
    segmenter.trained_on = frozenset({"x"})
    folded = segmenter.eval().for_inference()
    gone = torch.nn.BatchNorm2d, torch.nn.ZeroPad2d
    assert not [m for m in folded.modules() if isinstance(m, gone)] and folded.trained_on == {"x"}
    assert {f.shape[1] for f in folded.encode_images(images())} == {WIDTH}  # what no sentence changes is done already
    assert [m for m in segmenter.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert torch.allclose(logits(segmenter), logits(folded), atol=1e-4)


def test_all_trains_everything():
    segmenter = new_compact()
    trained = segmenter.trainable_parameters("all")
    segmenter.train()
    segmenter(images(), segmenter.encode_prompts(["crack", "tape"])).square().mean().backward()
    assert len(trained) == len(list(segmenter.parameters()))
    assert all(p.grad is not None for p in trained)


def test_channels_last_gives_the_same(compact):
    reference = logits(compact)
    converted = new_compact().to(memory_format=torch.contiguous_format).eval()
    assert (logits(converted) - reference).abs().max() < 1e-4


def test_wrong_weights(tmp_path):
    new_compact().save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{path}: cannot be read"):
        load_segmenter(tmp_path)
    (tmp_path / "segmenter.json").write_text('{"architecture": "compact"}')
    with pytest.raises(ValueError, match="segmenter.json: says nothing of image_size"):
        load_segmenter(tmp_path)


def test_autocast(compact):
    with torch.autocast("cpu", torch.bfloat16):
        half = logits(compact)
    reference = logits(compact)
    assert (half.float() - reference).abs().max() < 0.1 * reference.abs().max()
