"""Folders laid out as CIDAS/clipseg-rd64-refined on the hub, with random weights."""

import gzip
import importlib.util
import json
from pathlib import Path

import torch
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

START, END = "<|startoftext|>", "<|endoftext|>"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# What the hub's config.json states, as far as it shapes the model; its token ids are not the tokenizer's.
FULL = {
    "reduce_dim": 64,
    "extract_layers": [3, 6, 9],
    "conditional_layer": 0,
    "use_complex_transposed_convolution": True,
    "decoder_intermediate_size": 2048,
    "decoder_num_attention_heads": 4,
    "projection_dim": 512,
    "text_config": {
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "vocab_size": 49408,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "image_size": 224,
    },
}

TINY = {
    **FULL,
    "reduce_dim": 16,
    "extract_layers": [0, 1, 2],
    "decoder_intermediate_size": 32,
    "decoder_num_attention_heads": 2,
    "projection_dim": 24,
    "text_config": {
        **FULL["text_config"],
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "vision_config": {
        **FULL["vision_config"],
        "hidden_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 64,
    },
}


def bpe_file() -> Path | None:
    """Finds CLIP's published merges in open_clip, which is never imported; None where it is not installed."""
    spec = importlib.util.find_spec("open_clip")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if spec else None
    return path if path and path.is_file() else None


def byte_symbols() -> list[str]:
    """Returns one printable symbol for each byte, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def write_tokenizer(folder: Path, real: bool = True) -> int:
    """Writes the hub's four tokenizer files and returns the size of the vocabulary.

    It is CLIP's own where open_clip is installed and `real` asks for it, else made up, with three merges.
    """
    merges = ["c r", "cr a", "d r"]
    if real and (path := bpe_file()):
        merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1:48895]
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m.split()) for m in merges), START, END]
    assert len(set(tokens)) == len(tokens)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")

    def added(content: str, **more: str) -> dict:
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        return {**more, "content": content, **flags}

    special = {"bos_token": added(START), "eos_token": added(END), "unk_token": added(END)}
    _write(folder / "special_tokens_map.json", {**special, "pad_token": END})
    old = {"__type": "AddedToken"}
    tokenizer_config = {
        "add_prefix_space": False,
        "bos_token": added(START, **old),
        "do_lower_case": True,
        "eos_token": added(END, **old),
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-base-patch16",
        "pad_token": END,
        "special_tokens_map_file": "/home/somebody/.cache/huggingface/special_tokens_map",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": added(END, **old),
    }
    _write(folder / "tokenizer_config.json", tokenizer_config)
    return len(tokens)


def write_hub_folder(folder: Path, model: CLIPSegForImageSegmentation, image_size: int) -> None:
    """Writes the configuration, the old preprocessor file and the weights as the hub holds them: pickled."""
    config = {
        **_hub_config(model.config),
        "architectures": ["CLIPSegForImageSegmentation"],
        "torch_dtype": "float32",
    }
    _write(folder / "config.json", config)
    preprocessor = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTImageProcessor",
        "image_mean": MEAN,
        "image_std": STD,
        "resample": 2,
        "size": {"height": image_size, "width": image_size},
    }
    _write(folder / "preprocessor_config.json", preprocessor)
    state = model.state_dict()
    for part in ("text_model", "vision_model"):  # buffers that older classes stored
        positions = state[f"clip.{part}.embeddings.position_embedding.weight"].shape[0]
        state[f"clip.{part}.embeddings.position_ids"] = torch.arange(positions)[None]
    torch.save(state, folder / "pytorch_model.bin")


def _hub_config(config: CLIPSegConfig) -> dict:
    shapes = {key: getattr(config, key) for key in FULL if not key.endswith("_config")}
    parts = {
        part: {key: getattr(getattr(config, part), key) for key in FULL[part]}
        for part in ("text_config", "vision_config")
    }
    return {"model_type": "clipseg", **shapes, **parts}


def random_model(settings: dict = TINY, vocab_size: int = 49408, seed: int = 0) -> CLIPSegForImageSegmentation:
    """Draws a CLIPSeg whose every weight matters: biases and norms too are not what they start as.

    transformers' own draw differs between versions (5.24 gives the decoder logits of a thousand).
    """
    text = {**settings["text_config"], "vocab_size": vocab_size}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = CLIPSegForImageSegmentation(CLIPSegConfig(**{**settings, "text_config": text}))
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                fan_in = weight.shape[1] if weight.ndim == 2 else weight[0].numel()
                weight.normal_(std=fan_in**-0.5)
            else:
                norm = "norm" in name and name.endswith("weight")
                weight.normal_(mean=1.0 if norm else 0.0, std=0.05)
    return model.eval()


def tiny_clipseg_folder(path: Path, image_size: int = 64, seed: int = 0, real: bool = True) -> Path:
    """Writes a folder as the hub's with a tiny random CLIPSeg (64 px, patch 16; two layers unused)."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(path, real)
    write_hub_folder(path, random_model(TINY, vocab_size, seed), image_size)
    return path


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2))
