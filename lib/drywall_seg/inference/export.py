"""One `.onnx` file from a model: what `onnx_backend.OnnxBackend` runs without torch.

The file's own graph encodes images. Decoder, prompt encoder and settings are in its metadata.
"""

import base64
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from drywall_seg.inference.onnx_backend import DECODER, FORMAT, PROMPT_ENCODER, SETTINGS, OnnxBackend
from drywall_seg.inference.predict import THRESHOLDS_FILE, Backend
from drywall_seg.inference.scores import sigmoid
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import checkpoint_folder, load_segmenter
from drywall_seg.models.base import Features, Segmenter
from drywall_seg.models.compact import BUCKETS, CompactSegmenter
from drywall_seg.models.weights import hash_weights
from drywall_seg.prompts import LABELS, canonical_prompt
from drywall_seg.runs import read_object, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto
    from transformers import PreTrainedTokenizerBase

    from drywall_seg.models.clipseg import CLIPSegSegmenter

OPSET = 18
TOLERANCE = 1e-4
"""By how much a written model's probabilities may differ from torch's."""
SENTENCES = [*map(canonical_prompt, LABELS), "segment dog"]


def export_onnx(name_or_dir: str | Path, out: str | Path) -> Path:
    """Exports a compact model or a CLIPSeg with its thresholds, for images of its own size, to one `.onnx` file.

    It is written whole or not at all, and returned.

    Raises:
        ValueError: If the model is of another kind or cannot be loaded, `out` has another ending, a package is missing,
            or what onnxruntime says to a random image is not what torch says.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the name of an exported model ends in .onnx")
    try:
        import onnxscript  # noqa: F401  torch would say it in twenty lines
    except ModuleNotFoundError as error:
        raise ValueError(f"{out}: packages of the export are missing: pip install 'drywall-seg[onnx]'") from error
    segmenter = load_segmenter(name_or_dir)
    encode_prompt, sentence, settings = _prompt_part(segmenter, name_or_dir)
    thresholds = checkpoint_folder(name_or_dir) / THRESHOLDS_FILE
    settings |= {
        "format": FORMAT,
        "image_size": segmenter.image_size,
        "mean": segmenter.mean,
        "std": segmenter.std,
        "stored": read_object(thresholds) if thresholds.is_file() else {},
        "trained_on": sorted(segmenter.trained_on),
        "model_hash": hash_weights(segmenter),
    }
    model = segmenter.for_inference().eval()
    try:
        main, decoder = _image_part(model)
        prompt_encoder = _graph(model, encode_prompt, sentence, ["embeddings"])
    except torch.onnx.OnnxExporterError as error:  # of many lines
        raise ValueError(f"{out}: torch {torch.__version__} cannot export this model; 2.8 and 2.13 can") from error
    main.metadata_props.add(key=SETTINGS, value=json.dumps(settings))
    for key, graph in ((DECODER, decoder), (PROMPT_ENCODER, prompt_encoder)):
        main.metadata_props.add(key=key, value=base64.b64encode(graph.SerializeToString()).decode())
    with whole_file(out) as partial:
        partial.write_bytes(main.SerializeToString())
        difference = largest_difference(TorchBackend(segmenter, "cpu"), OnnxBackend(partial, "cpu"))
        if not difference <= TOLERANCE:  # NaN is not either
            raise ValueError(f"{out}: not written, since it differs from torch by {difference:.1e}")
    return out


def largest_difference(expected: Backend, got: Backend) -> float:
    """Returns by how much two backends differ on a fixed random image and several sentences.

    It is the largest difference of a probability or, where that is more, of a logit as a share of the largest one:
    probabilities near 0 would be alike whatever the logits.
    """
    size = expected.image_size
    pixels = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    theirs, ours = (
        b.decode(b.encode_images(pixels), [0] * len(SENTENCES), b.encode_prompts(SENTENCES)) for b in (expected, got)
    )
    share = np.abs(theirs - ours).max() / max(1.0, np.abs(theirs).max())
    return float(np.maximum(share, np.abs(sigmoid(theirs) - sigmoid(ours)).max()))


def _image_part(model: Segmenter) -> tuple["ModelProto", "ModelProto"]:
    """Returns the graphs of image encoder and decoder."""
    # Two images and three sentences stand for any number: of one alone the exporter would make a fixed size.
    pixels = torch.zeros(2, 3, model.image_size, model.image_size)
    with torch.no_grad():
        features, embeddings = model.encode_images(pixels), model.encode_prompts(SENTENCES[:3])
    names = [f"features_{number}" for number in range(len(features))]
    pairs = {"images": torch.tensor([0, 1, 1]), "embeddings": embeddings}
    main = _graph(model, type(model).encode_images, {"pixel_values": pixels}, names)
    return main, _graph(model, _decode, pairs | dict(zip(names, features, strict=True)), ["logits"])


def _decode(model: Segmenter, images: Tensor, embeddings: Tensor, *features: Tensor) -> Tensor:
    return model.decode(tuple(f.index_select(0, images) for f in features), embeddings)


def _prompt_part(segmenter: Segmenter, name: str | Path) -> tuple[Callable, dict[str, Tensor], dict[str, Any]]:
    """Returns what encodes a sentence, an example of its inputs, and the settings that turn a text into such."""
    if isinstance(segmenter, CompactSegmenter):
        return _embed_hashes, {"ids": torch.arange(5)}, {"architecture": "compact", "buckets": BUCKETS}
    from drywall_seg.models.clipseg import CLIPSegSegmenter  # imports transformers, which the compact model never needs

    if not isinstance(segmenter, CLIPSegSegmenter):
        raise ValueError(f"{name}: a {type(segmenter).__name__}; only a compact model or a CLIPSeg can be exported")
    length = segmenter.model.config.text_config.max_position_embeddings
    ids = torch.ones(2, length, dtype=torch.int64)
    inputs = {"ids": ids, "attention_mask": ids.clone()}  # the same tensor twice would be one input to the exporter
    tokenizer = fixed_length(segmenter.tokenizer, length)
    return _embed_tokens, inputs, {"architecture": "clipseg", "tokenizer": tokenizer}


def _embed_hashes(model: CompactSegmenter, ids: Tensor) -> Tensor:
    return model.text.mlp(model.text.bag.weight[ids].mean(0, keepdim=True))  # ONNX has no embedding bag


def _embed_tokens(model: "CLIPSegSegmenter", ids: Tensor, attention_mask: Tensor) -> Tensor:
    clip = model.model.clip
    pooled = clip.text_model(input_ids=ids, attention_mask=attention_mask, return_dict=True).pooler_output
    return clip.text_projection(pooled)


def fixed_length(tokenizer: "PreTrainedTokenizerBase", length: int) -> str:
    """Returns a tokenizer as JSON of the package tokenizers; it cuts and pads as `CLIPSegSegmenter.embed_prompts`."""
    from tokenizers import Tokenizer

    fixed = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: transformers sets its own at every call
    fixed.enable_truncation(length, direction=tokenizer.truncation_side)
    fixed.enable_padding(
        direction=tokenizer.padding_side,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        length=length,
    )
    return fixed.to_str()


class _Call(nn.Module):
    """A function of a model as the module that the exporter takes."""

    def __init__(self, model: Segmenter, function: Callable) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Tensor | Features:
        return self.function(self.model, *inputs)


def _graph(model: Segmenter, function: Callable, inputs: dict[str, Tensor], outputs: list[str]) -> "ModelProto":
    """Exports a function of a model; each input's first dimension may be of any size."""
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            _Call(model, function).eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=(tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),),
            opset_version=OPSET,
            dynamo=True,  # the older exporter cannot trace `check_side`
            verbose=False,
        )
    proto = program.model_proto
    for noted in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        del noted.metadata_props[:]  # which line of which file on this machine each node came from
    return proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Holds back warnings on torch's own outdated calls and on packages that no model here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
