"""Models whose files are nonsense, or of somebody who means harm: each is refused in one line that names the file."""

import json
import os
import pickle
import shutil
import struct

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from drywall_seg.inference import Predictor
from drywall_seg.inference.onnx_backend import DECODER, PROMPT_ENCODER, SETTINGS
from drywall_seg.models import COMPACT, load_segmenter
from drywall_seg.runs import read_json, write_json
from tests.faults.table import READ, REFUSED
from tests.inference.test_predict import Fake
from tests.models.clipseg_folders import tiny_clipseg_folder

OURS, WEIGHTS, DELIVERY, KNOWN = "segmenter.json", "model.safetensors", "thresholds.json", "photographs.json"
HUBS, PREPROCESSOR = "config.json", "preprocessor_config.json"
NOT_JSON = {
    "no bytes": b"",
    "cut": b'{"architecture": "comp',
    "NUL": bytes(99),
    "UTF-16": "{}".encode("utf-16"),
    "a pickle": pickle.dumps({"architecture": "compact"}),
    "200,000 brackets": b"[" * 200_000,
    "5,000 digits": b"9" * 5000,
}


@pytest.fixture
def compact(tmp_path):
    folder = tmp_path / "compact"
    folder.mkdir()
    for name in (OURS, DELIVERY, KNOWN):
        shutil.copy(COMPACT / name, folder)
    (folder / WEIGHTS).symlink_to(COMPACT / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A folder as the hub's, with a tiny CLIPSeg, and a fine-tune of its decoder; only to be read."""
    root = tmp_path_factory.mktemp("clipseg")
    segmenter = load_segmenter(tiny_clipseg_folder(root / "hub", real=False))
    (root / "tuned").mkdir()
    segmenter.save(root / "tuned")
    return root


@pytest.fixture
def hub(released, tmp_path):
    return shutil.copytree(released / "hub", tmp_path / "hub")


def edit(file, *keys, value):
    """Puts a value into a JSON file, at a path of keys."""
    data = inner = read_json(file)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    write_json(file, data)


def refused(folder, message, load=load_segmenter):
    with pytest.raises(ValueError, match=message) as failure:
        load(folder)
    assert str(folder) in str(failure.value)
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 700 + len(str(folder))


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("name", [OURS, DELIVERY, KNOWN])
def test_what_is_no_json(compact, name, text):
    (compact / name).write_bytes(text)
    refused(compact, f"{name}: not (JSON|a JSON object)", Predictor.load)


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("value", [5, None, "compact", {"a": 1}, [5], [["a"]]], ids=repr)
def test_photographs_that_are_no_hashes(compact, value):
    write_json(compact / KNOWN, value)
    refused(compact, f"{KNOWN}: not a list of hashes")


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("side", ["320", 320.5, None, True, [320], -32, 0, 33, 10**9, float("inf")], ids=repr)
def test_a_side_that_no_photo_can_have(compact, side):
    edit(compact / OURS, "image_size", value=side)
    refused(compact, "image_size is .*, not pixels up to 4096|images of 33 pixels, not square")


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("name", [None, 5, [], {}, "unet", "../compact", "compact\0"], ids=repr)
def test_an_architecture_that_is_none(compact, name):
    edit(compact / OURS, "architecture", value=name)
    refused(compact, f"{OURS}: unknown architecture")


def tensors(change):
    """Spoils the weights by a change of their tensors."""

    def spoil(folder):
        state = load_file(folder / WEIGHTS)
        change(state)
        (folder / WEIGHTS).unlink()
        save_file(state, folder / WEIGHTS)

    return spoil


def content(change):
    """Spoils the weights by a change of their bytes."""

    def spoil(folder):
        data = change((folder / WEIGHTS).read_bytes())
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).write_bytes(data)

    return spoil


class Trap:
    def __reduce__(self):
        return os.mkdir, (TRAP,)


TRAP = "/tmp/unpickled-by-drywall-seg"
SCORE = "decoder.score.bias"
NO_SAFETENSORS = f"{WEIGHTS}: cannot be read as safetensors"
OTHER = f"{WEIGHTS}: not the weights of this model"
SPOILED = {
    "a pickle in disguise": (content(lambda _: pickle.dumps(Trap())), NO_SAFETENSORS),
    "a pickle behind a header's length": (
        content(lambda _: struct.pack("<Q", 64) + pickle.dumps(Trap())),
        NO_SAFETENSORS,
    ),
    "cut": (content(lambda data: data[: len(data) // 2]), NO_SAFETENSORS),
    "longer than it says": (content(lambda data: data + b"more"), NO_SAFETENSORS),
    "a header of 2 EB": (content(lambda data: struct.pack("<Q", 2**61) + data[8:]), NO_SAFETENSORS),
    "a header of no JSON": (content(lambda data: data[:8] + b"[" * 999 + data[1007:]), NO_SAFETENSORS),
    "no bytes": (content(lambda _: b""), NO_SAFETENSORS),
    "a pointer to Git LFS": (
        content(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        NO_SAFETENSORS,
    ),
    "a folder": (lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()), NO_SAFETENSORS),
    "not there": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS}: no such file"),
    "a weight is missing": (tensors(lambda state: state.pop(SCORE)), f"{OTHER}: 1 missing \\(such as {SCORE}"),
    "a weight too many": (tensors(lambda state: state.update(x=torch.ones(1))), f"{OTHER}: 1 unknown \\(such as x"),
    "a weight of another shape": (
        tensors(lambda state: state.update({SCORE: torch.ones(2)})),
        f"{OTHER}: 1 of another shape",
    ),
    "no weight at all": (tensors(lambda state: state.clear()), f"{OTHER}: .* missing"),
    "another model's": (
        tensors(lambda state: (state.clear(), state.update(weight=torch.ones(9)))),
        f"{OTHER}: .* missing",
    ),
    "NaN in a weight": (
        tensors(lambda state: state[SCORE].fill_(torch.nan)),
        f"its weight {SCORE} holds what is no finite",
    ),
    "infinity in a weight": (tensors(lambda state: state[SCORE].fill_(torch.inf)), "holds what is no finite number"),
}


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("name", SPOILED)
def test_weights_of_nonsense(compact, name):
    spoil, message = SPOILED[name]
    spoil(compact)
    refused(compact, message)
    assert not os.path.exists(TRAP)


# --- What masks are made by


@pytest.fixture
def without_weights(monkeypatch):
    """What is not looked at here takes no time."""
    monkeypatch.setattr("drywall_seg.models.load_segmenter", lambda *_: None)
    monkeypatch.setattr("drywall_seg.inference.torch_backend.TorchBackend", lambda *_, **__: Fake())


NONE = [5, "0.5", None, [], True, float("nan"), float("inf"), -0.1, 1.1, 10**400]
REFERENCE = read_json(COMPACT / DELIVERY)["reference"]["crack"]
DELIVERIES = [
    *((("thresholds",), value, "thresholds is .*, not a value for each label") for value in (5, "x", None, [])),
    *((("thresholds", "crack"), value, "crack is .*, not a number from 0 to 1") for value in NONE),
    *((("presence_cut",), value, "presence_cut is .*, not a number from 0 to 1") for value in NONE),
    *((("postprocessing",), value, "postprocessing is .*, not a value for each label") for value in (5, "x", None, [])),
    *((("postprocessing",), {"crack": v}, "post-processing of crack is") for v in (5, None, {"x": 1}, {"boxes": []})),
    *((("postprocessing",), {"crack": {"opening": v}}, "crack is .*opening is .* not a share") for v in NONE),
    *((("reference",), value, "reference is .*, not a value for each label") for value in (5, "x", None, [])),
    *((("reference", "crack"), v, "the reference of crack is") for v in (5, {}, {**REFERENCE, "n": 0})),
    *(
        (("reference", "crack", "area"), v, "the reference of crack is")
        for v in ([], [0.5] * 20, ["a"] * 21, [float("nan")] * 21)
    ),
]


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize(
    ("keys", "value", "message"), DELIVERIES, ids=lambda v: "" if hasattr(v, "startswith") else repr(v)[:40]
)
def test_thresholds_of_nonsense(compact, without_weights, keys, value, message):
    edit(compact / DELIVERY, *keys, value=value)
    refused(compact, f"{DELIVERY}: .*{message}", Predictor.load)


@pytest.mark.fault("checkpoints", READ)
@pytest.mark.parametrize(
    ("stored", "threshold", "cut"),
    [
        ({}, 0.5, 0),
        ({"thresholds": {}}, 0.5, 0),
        ({"thresholds": {"wall": 0.1}, "chosen": 5, "more": [None]}, 0.5, 0),
        ({"thresholds": {"crack": 1}, "presence_cut": 0.25}, 1, 0.25),
    ],
    ids=["nothing", "no thresholds", "another label's and more", "whole numbers"],
)
def test_odd_thresholds_are_taken_as_they_are(compact, without_weights, stored, threshold, cut):
    write_json(compact / DELIVERY, stored)
    predictor = Predictor.load(compact)
    assert predictor.threshold_for("segment crack") == threshold and predictor.presence_cut == cut


# --- CLIPSeg


def text(name, data):
    return lambda hub: (hub / name).write_bytes(data)


def config(*keys, value):
    return lambda hub: edit(hub / HUBS, *keys, value=value)


def preprocessor(key, value):
    return lambda hub: edit(hub / PREPROCESSOR, key, value=value)


RELEASED = {
    "config.json is a list": (text(HUBS, b"[]"), "config.json: not a JSON object, but \\[\\]"),
    "config.json is a number": (text(HUBS, b"5"), "config.json: not a JSON object, but 5"),
    "config.json nests too deep": (text(HUBS, b"[" * 200_000), "config.json: not JSON"),
    "config.json of another kind": (config("model_type", value="bert"), "does not say model_type clipseg"),
    "config.json says nothing more": (text(HUBS, b'{"model_type": "clipseg"}'), "cannot be read as weights of CLIPSeg"),
    "a width as text": (config("reduce_dim", value="16"), "cannot be loaded \\(.*reduce_dim"),
    "a width below zero": (config("reduce_dim", value=-1), "cannot be read as weights of CLIPSeg"),
    "a width of zero": (config("reduce_dim", value=0), "cannot be loaded \\(0.0 cannot be raised|cannot be read as"),
    "a width of a billion": (config("reduce_dim", value=10**9), "cannot be read as weights of CLIPSeg"),
    "a part that is a list": (config("text_config", value=[]), "cannot be loaded \\(.*text_config"),
    "a patch of zero pixels": (config("vision_config", "patch_size", value=0), "cannot be loaded \\(.*zero"),
    "layers that are not there": (config("extract_layers", value=[99]), "extract_layers .*99.* is not there"),
    "layers from the end": (config("extract_layers", value=[-1, 0, 1]), "extract_layers .*-1.* is not there"),
    "no layers": (config("extract_layers", value=[]), "extract_layers .* is not there|cannot be loaded"),
    "a sentence that goes nowhere": (config("conditional_layer", value=99), "conditional_layer 99 is not there"),
    "a preprocessor that is a list": (text(PREPROCESSOR, b"[]"), "preprocessor_config.json: not a JSON object"),
    "a side as text": (preprocessor("size", "64"), "image_size is '64', not pixels up to 4096"),
    "a side below zero": (preprocessor("size", -64), "image_size is -64"),
    "a side of a billion": (preprocessor("size", 10**9), "image_size is 1000000000"),
    "a side in a list": (preprocessor("size", {"height": [1], "width": [1]}), "image_size is \\[1\\]"),
    "a mean of four": (preprocessor("image_mean", [0.5] * 4), "mean is .*, not three numbers"),
    "a mean of NaN": (preprocessor("image_mean", [float("nan")] * 3), "mean is .*, not three numbers"),
    "a deviation of zero": (preprocessor("image_std", [0, 0, 0]), "std is .*, not three numbers above 0"),
    "a vocabulary of no bytes": (text("vocab.json", b""), "cannot be loaded \\(.*BPE"),
    "a vocabulary that is a list": (text("vocab.json", b"[]"), "cannot be loaded \\(.*vocabulary"),
    "merges of nonsense": (text("merges.txt", b"\xff\xfe"), "cannot be loaded \\(.*UTF-8"),
    "a tokenizer's settings, cut": (text("tokenizer_config.json", b"{"), "cannot be loaded"),
    "a tokenizer's settings, a number": (text("tokenizer_config.json", b"5"), "cannot be loaded"),
}


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_folder_of_nonsense(hub, name):
    spoil, message = RELEASED[name]
    spoil(hub)
    refused(hub, message)


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("base", 5, "its base 5 names no model"),
        ("base", {"name": None}, "its base {'name': None} names no model"),
        ("base", {"name": "/nowhere", "revision": None}, "its base /nowhere is no longer there"),
        ("base", None, "says nothing of config"),
        ("mean", "abc", "mean is 'abc', not three numbers"),
        ("std", [-1, -1, -1], "std is .*, not three numbers above 0"),
        ("image_size", "64", "image_size is '64'"),
    ],
    ids=repr,
)
def test_a_fine_tune_of_nonsense(released, tmp_path, key, value, message):
    folder = shutil.copytree(released / "tuned", tmp_path / "tuned")
    edit(folder / OURS, key, value=value)
    refused(folder, f"{OURS}: {message}")


@pytest.mark.fault("checkpoints", REFUSED)
def test_a_fine_tune_of_another_base(released, tmp_path):
    """The hash of the base's weights stands beside the decoder."""
    folder = shutil.copytree(released / "tuned", tmp_path / "tuned")
    edit(folder / OURS, "base", "weights", value="0" * 32)
    refused(folder, "its decoder was trained on another base")


# --- ONNX


def write_onnx(path, **metadata):
    """A file that onnxruntime can run, with metadata as an export has them."""
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


EXPORTED = {
    "format": 1,
    "architecture": "compact",
    "image_size": 64,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "trained_on": [],
    "model_hash": "0" * 32,
    "stored": {},
    "buckets": 9,
}


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[" * 200_000, "its settings are not JSON"),
        ("9" * 5000, "its settings are not JSON"),
        ([], "of format None"),
        (5, "of format None"),
        (EXPORTED | {"format": "1"}, "of format '1'"),
        (EXPORTED | {"architecture": "sam3"}, "its architecture is 'sam3'"),
        (EXPORTED | {"architecture": ["compact"]}, r"its architecture is \['compact'\]"),
        (EXPORTED | {"image_size": 10**9}, "image_size is 1000000000"),
        (EXPORTED | {"image_size": "64"}, "image_size is '64'"),
        (EXPORTED | {"mean": [None] * 3}, r"mean is \[None"),
        (EXPORTED | {"std": [0, 0, 0]}, r"std is \[0, 0, 0\]"),
        (EXPORTED | {"trained_on": 5}, "its trained_on is 5"),
        (EXPORTED | {"stored": [1]}, r"its stored is \[1\]"),
        ({k: v for k, v in EXPORTED.items() if k != "model_hash"}, "its model_hash is None"),
        (EXPORTED | {"architecture": "clipseg", "tokenizer": "{}"}, "its tokenizer cannot be read"),
        (EXPORTED, "a graph in its metadata is not base64"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:40],
)
def test_an_export_of_nonsense(tmp_path, settings, message):
    file = tmp_path / "model.onnx"
    text = settings if isinstance(settings, str) else json.dumps(settings)
    write_onnx(file, **{SETTINGS: text, DECODER: "?", PROMPT_ENCODER: "?"})
    refused(file, message, Predictor.load)


@pytest.mark.fault("checkpoints", REFUSED)
def test_an_export_that_reads_another_file(tmp_path):
    """ONNX may keep its weights outside; a file from elsewhere could have anything of this machine read."""
    file, secret = tmp_path / "in" / "model.onnx", tmp_path / "secret"
    file.parent.mkdir()
    secret.write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    tensor = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=onnx.TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="../secret")
    out = onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["w"], ["b"])], "g", [], [out], [tensor])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    file.write_bytes(model.SerializeToString())
    refused(file, "damaged, or no ONNX", Predictor.load)
