import pytest
import torch
from transformers import CLIPTokenizer

from drywall_seg.models.clipseg import CLIPSegSegmenter
from tests.models.clipseg_folders import FULL, MEAN, STD, random_model, write_tokenizer

PROMPTS = ["segment crack", "segment taping area", "trace joint line"]
# (side, which image, which prompt): one prompt, several prompts on one image, several images
CASES = {
    "352, one": (352, [0], [0]),
    "352, three": (352, [0, 0, 1], [0, 1, 2]),
    "512, one": (512, [0], [0]),
    "512, two": (512, [0, 1], [0, 1]),
}


def images(size, numbers):
    return torch.stack(
        [torch.randn(3, size, size, generator=torch.Generator().manual_seed(number)) for number in numbers]
    )


def relative_difference(a, b):
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """rd64-refined's shape with random weights, and what Hugging Face's own forward says of every case."""
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = random_model(FULL)
    expected = {}
    for name, (size, which, prompts) in CASES.items():
        tokens = tokenizer([PROMPTS[number] for number in prompts], padding=True, return_tensors="pt")
        with torch.inference_mode():
            expected[name] = model(**tokens, pixel_values=images(size, which), interpolate_pos_encoding=True).logits
    return CLIPSegSegmenter(model, tokenizer, 352, MEAN, STD).eval(), expected


@pytest.mark.parametrize("case", CASES)
def test_equals_hugging_face(full_size, case):
    segmenter, expected = full_size
    size, which, prompts = CASES[case]
    with torch.inference_mode():
        unique = sorted(set(which))
        features = segmenter.encode_images(images(size, unique))  # each image once
        index = [unique.index(number) for number in which]
        embeddings = segmenter.encode_prompts([PROMPTS[number] for number in prompts])
        logits = segmenter.decode(tuple(f[index] for f in features), embeddings)
    assert logits.shape == (len(which), size, size)
    difference = relative_difference(logits, expected[case])
    print(f"{case}: relative difference {difference:.1e}")
    assert difference < 1e-5


def test_the_cases_can_tell_prompts_and_images_apart(full_size):
    _, expected = full_size
    first, second, third = expected["352, three"]
    assert relative_difference(first, second) > 1e-2 and relative_difference(second, third) > 1e-2


def test_full_size_counts(full_size):
    segmenter, _ = full_size
    assert sum(p.numel() for p in segmenter.trainable_parameters("decoder")) == 1_127_009
    assert len(segmenter.model.clip.vision_model.encoder.layers) == 10
    assert segmenter.image_size == 352 and segmenter.size_step == 16


def test_full_size_decoder_file(full_size, tmp_path):
    segmenter, _ = full_size
    segmenter.base, segmenter._clip_is_base = {"name": "CIDAS/clipseg-rd64-refined", "revision": "0" * 40}, True
    segmenter.trainable_parameters("decoder")
    segmenter.save(tmp_path)
    assert 4.4e6 < (tmp_path / "model.safetensors").stat().st_size < 4.6e6


def calls_of(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_two_prompts_cost_one_encode(tiny):
    clip = tiny.model.clip
    text, vision, decoder = calls_of(clip.text_model), calls_of(clip.vision_model), calls_of(tiny.model.decoder)
    with torch.no_grad():
        for _ in range(2):
            features = tiny.encode_images(images(64, [0]))
            for row in tiny.encode_prompts(PROMPTS[:2]):
                tiny.decode(features, row[None])
    assert (len(text), len(vision), len(decoder)) == (2, 2, 4)  # each sentence once


def test_layers_past_the_last_that_is_read_are_gone(tiny):
    layers = tiny.model.clip.vision_model.encoder.layers
    runs = [calls_of(layer) for layer in layers]
    with torch.no_grad():
        tiny.encode_images(images(64, [0]))
    assert len(layers) == max(tiny.model.extract_layers) + 1 == 3 < tiny.model.config.vision_config.num_hidden_layers
    assert runs == [[1]] * 3


def test_features_are_batch_first(tiny):
    with torch.no_grad():
        features = tiny.encode_images(images(96, [0, 1]))
    assert [tuple(f.shape) for f in features] == [(2, 37, 32)] * 3


@pytest.mark.parametrize("shape", [(64, 80), (72, 72)])
def test_sides_that_do_not_fit(tiny, shape):
    with pytest.raises(ValueError, match=f"images of {shape[0]} x {shape[1]} pixels.*16 divides"):
        tiny.encode_images(torch.zeros(1, 3, *shape))


def test_the_last_vision_layers_can_train_too(tiny):
    step(tiny, "decoder+2")
    clip = tiny.model.clip
    grads = [[p.grad is not None for p in layer.parameters()] for layer in clip.vision_model.encoder.layers]
    assert not any(grads[0]) and all(grads[1]) and all(grads[2])
    assert all(p.grad is None for p in clip.text_model.parameters())
    with pytest.raises(ValueError, match="has 3 blocks"):
        tiny.trainable_parameters("decoder+4")


def step(segmenter, part):
    trained = segmenter.trainable_parameters(part)
    segmenter.train()
    logits = segmenter(images(64, [0, 1]), segmenter.encode_prompts(PROMPTS[:2]))
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    torch.optim.AdamW(trained, lr=1e-2).step()
    return trained


def test_decoder_alone_trains(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    trained = step(tiny, "decoder")
    assert {id(p) for p in trained} == {id(p) for p in tiny.model.decoder.parameters()}
    assert all(p.grad is None for p in tiny.model.clip.parameters())
    assert not any(module.training for module in tiny.model.clip.modules()) and tiny.model.decoder.training
    moved = {name for name, tensor in tiny.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)


def test_all_trains_text_and_vision(tiny):
    trained = step(tiny, "all")
    assert all(p.grad is not None for p in trained)  # DDP stops at any that has none
    clip = tiny.model.clip
    for weight in (
        clip.text_model.embeddings.token_embedding.weight,
        clip.text_projection.weight,
        clip.vision_model.embeddings.patch_embedding.weight,
        clip.vision_model.encoder.layers[-1].mlp.fc2.weight,
    ):
        assert weight.grad.abs().sum() > 0
    assert clip.training and clip.vision_model.encoder.layers[0].training


def test_starts_with_clip_frozen(tiny):
    assert not any(p.requires_grad for p in tiny.model.clip.parameters())
    assert all(p.requires_grad for p in tiny.model.decoder.parameters())
    assert not any(f.requires_grad for f in tiny.encode_images(images(64, [0])))


def test_prompts_follow_the_text_encoder(tiny):
    text = calls_of(tiny.model.clip.text_model)
    tiny.encode_prompts(PROMPTS)
    step(tiny, "all")
    with torch.no_grad():
        tiny.encode_prompts(PROMPTS)  # in training mode
        tiny.eval()
        kept = tiny.encode_prompts(PROMPTS)
        assert len(text) == 2 + 2 * len(set(PROMPTS))  # each sentence alone where it is kept
        assert torch.equal(tiny.encode_prompts(PROMPTS), kept) and len(text) == 2 + 2 * len(set(PROMPTS))
        assert torch.allclose(kept, tiny.embed_prompts(PROMPTS), rtol=1e-4, atol=1e-5)


def test_gradients_of_the_decoder_equal_hugging_faces(hub_folder, tiny):
    """An independent reference for the training path, not only for the forward one."""
    from transformers import CLIPSegForImageSegmentation

    model = CLIPSegForImageSegmentation.from_pretrained(hub_folder)
    tokens = tiny.tokenizer(PROMPTS[:2], padding=True, return_tensors="pt")
    model(**tokens, pixel_values=images(64, [0, 1])).logits.sigmoid().sum().backward()
    tiny(images(64, [0, 1]), tiny.encode_prompts(PROMPTS[:2])).sigmoid().sum().backward()
    largest = max(weight.grad.abs().max() for weight in model.decoder.parameters())
    for mine, theirs in zip(tiny.model.decoder.parameters(), model.decoder.parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max() < 1e-5 * largest


def test_autocast(tiny):
    with torch.no_grad():
        reference = tiny(images(64, [0, 1]), tiny.encode_prompts(PROMPTS[:2]))
        tiny.forget_prompts()
        with torch.autocast("cpu", torch.bfloat16):
            half = tiny(images(64, [0, 1]), tiny.encode_prompts(PROMPTS[:2]))
    assert relative_difference(half.float(), reference) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        step(tiny, "all")
