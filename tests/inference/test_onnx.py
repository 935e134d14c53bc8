import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drywall_seg.data.sample_pictures import draw_photograph
from drywall_seg.inference import Predictor, export
from drywall_seg.inference.export import export_onnx, fixed_length, largest_difference
from drywall_seg.inference.onnx_backend import DECODER, PROMPT_ENCODER, SETTINGS, OnnxBackend
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import COMPACT, load_segmenter
from drywall_seg.models.base import Segmenter
from drywall_seg.models.compact import CompactSegmenter, new_compact
from drywall_seg.runs import read_json, write_json
from tests.faults.table import READ, REFUSED
from tests.models.clipseg_folders import tiny_clipseg_folder

ROOT = Path(__file__).parents[2]
PROMPTS = ["segment crack", "segment taping area", "trace joint line", "Find the LADDER, please!", "дом " * 60]
MORE = {
    "postprocessing": {"crack": {"min_area": 1e-4}},
    "reference": {"crack": read_json(COMPACT / "thresholds.json")["reference"]["crack"]},
}
LINE = r"`pip install (click [\w -]+)`, then `pip install --no-deps .`"
RUNNING = [*re.search(LINE, (ROOT / "docs" / "recipes.md").read_text())[1].split(), "tokenizers"]


def photo(label, size_wh=(240, 320)):
    return np.asarray(draw_photograph(np.random.default_rng(42), label, size_wh, 1.0, False)[0])


def stored_graph(text):
    return onnx.load_from_string(base64.b64decode(text))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint of each architecture: the shipped weights, with more beside the thresholds, and a tiny CLIPSeg."""
    root = tmp_path_factory.mktemp("checkpoints")
    compact = root / "compact"
    shutil.copytree(COMPACT, compact)
    write_json(compact / "thresholds.json", read_json(compact / "thresholds.json") | MORE)
    return {"compact": compact, "clipseg": tiny_clipseg_folder(root / "clipseg")}


@pytest.fixture(scope="module")
def exported(folders):
    return {name: export_onnx(folder, folder.parent / f"{name}.onnx") for name, folder in folders.items()}


@pytest.fixture(params=["compact", "clipseg"])
def pair(request, folders, exported):
    """The same checkpoint as torch and as ONNX."""
    name = request.param
    predictors = Predictor.load(folders[name], device="cpu", raw=True), Predictor.load(exported[name], raw=True)
    assert isinstance(predictors[1].backend, OnnxBackend)
    return predictors


def test_the_same_probabilities(pair):
    photos, prompts = [photo("crack"), photo("taping_area", (320, 200))], [PROMPTS, PROMPTS[:2]]
    theirs, ours = (predictor.predict_batch(photos, prompts) for predictor in pair)
    for expected, got in zip(sum(theirs, []), sum(ours, []), strict=True):
        assert got.prompt == expected.prompt and got.probs.shape == expected.probs.shape
        np.testing.assert_allclose(got.probs, expected.probs, rtol=0, atol=1e-4)
        assert (got.threshold, got.presence) == pytest.approx((expected.threshold, expected.presence), abs=1e-4)
    for crack, area in (answers[:2] for answers in theirs):
        assert max(np.ptp(crack.probs), np.ptp(area.probs)) > 0.1
        assert np.abs(crack.probs - area.probs).max() > 0.02


def test_the_same_embeddings(pair):
    theirs, ours = (predictor.backend.encode_prompts(PROMPTS) for predictor in pair)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1


def test_the_same_logits_in_any_company(pair):
    theirs, ours = (predictor.backend for predictor in pair)
    pixels = np.random.default_rng(0).standard_normal((3, 3, *[ours.image_size] * 2), np.float32)
    embeddings = theirs.encode_prompts(PROMPTS[:4])
    for count, images in ((1, [0]), (1, [0] * 4), (2, [1]), (3, [2, 0, 0, 1])):
        expected, got = (
            b.decode(b.encode_images(pixels[:count]), images, embeddings[: len(images)]) for b in (theirs, ours)
        )
        assert got.dtype == np.float32 and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_prompt_is_embedded_once(exported, monkeypatch):
    backend = OnnxBackend(exported["compact"])
    asked = []
    tokenize = backend._tokenize
    monkeypatch.setattr(backend, "_tokenize", lambda text: asked.append(text) or tokenize(text))
    first = backend.encode_prompts(["segment crack", "segment dog", "segment crack"])
    again = backend.encode_prompts(["segment dog"])
    assert asked == ["segment crack", "segment dog"]
    assert np.array_equal(first[0], first[2]) and np.array_equal(first[1], again[0])


def test_all_that_belongs_to_a_checkpoint_comes_along(folders, exported):
    for name, folder in folders.items():
        backend, theirs = OnnxBackend(exported[name]), TorchBackend(load_segmenter(folder), "cpu")
        for attribute in ("image_size", "mean", "std", "trained_on", "model_hash"):
            assert getattr(backend, attribute) == getattr(theirs, attribute), attribute
    stored = read_json(folders["compact"] / "thresholds.json")
    assert OnnxBackend(exported["compact"]).stored == stored and stored.keys() > {*MORE, "thresholds", "presence_cut"}
    assert len(OnnxBackend(exported["compact"]).trained_on) > 800
    assert OnnxBackend(exported["clipseg"]).stored == {}


def test_a_predictor_takes_the_thresholds(folders, exported):
    ours, theirs = Predictor.load(exported["compact"]), Predictor.load(folders["compact"], device="cpu")
    assert ours.postprocessing["crack"].min_area == MORE["postprocessing"]["crack"]["min_area"]
    for attribute in ("thresholds", "presence_cut", "chosen", "reference", "postprocessing"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute


def test_the_file_tells_nothing_of_this_machine(exported):
    for path in exported.values():
        model = onnx.load(path)
        parts = {entry.key: entry.value for entry in model.metadata_props}
        assert parts.keys() == {SETTINGS, DECODER, PROMPT_ENCODER}
        graphs = [model, *(stored_graph(parts[key]) for key in (DECODER, PROMPT_ENCODER))]
        for graph in graphs:
            onnx.checker.check_model(graph, full_check=True)
            assert not re.search(rb"site-packages|\.py\b|" + str(ROOT).encode(), graph.SerializeToString())


@pytest.fixture(scope="module")
def tokenizers(folders):
    """transformers' tokenizer as the segmenter calls it, and the exported one."""
    from tokenizers import Tokenizer

    theirs = load_segmenter(folders["clipseg"]).tokenizer
    ours = Tokenizer.from_str(fixed_length(theirs, 77))

    def ids_of(text):
        tokens = theirs([text], padding="max_length", truncation=True, max_length=77)
        return tokens.input_ids[0], tokens.attention_mask[0]

    def our_ids_of(text):
        tokens = ours.encode(text)
        return tokens.ids, tokens.attention_mask

    return ids_of, our_ids_of


@pytest.mark.parametrize(
    "text",
    [
        *PROMPTS,
        "",
        " \t\n",
        "crack " * 75,
        "crack " * 76,
        "a <|endoftext|> b",
        "naïve Ünïcode e\u0301",
        "裂縫 🧱👷🏽",
        "it's",
    ],
)
def test_the_same_tokens(tokenizers, text):
    theirs, ours = tokenizers
    assert ours(text) == theirs(text)
    assert len(ours(text)[0]) == 77


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_the_same_tokens_of_any_text(tokenizers, text):
    theirs, ours = tokenizers
    assert ours(text) == theirs(text)


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: no such file"):
            OnnxBackend(path)


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("kept", [0, 1, 1000, 0.5, 0.99, -1])
def test_a_file_that_was_cut_off(exported, tmp_path, kept):
    whole = exported["compact"].read_bytes()
    (tmp_path / "a.onnx").write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"a\.onnx: damaged, or no ONNX") as caught:
        OnnxBackend(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("checkpoints", REFUSED)
def test_a_file_that_is_no_onnx(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x89PNG and so on" * 10)
    with pytest.raises(ValueError, match=r"a\.onnx: damaged, or no ONNX"):
        OnnxBackend(tmp_path / "a.onnx")


@pytest.mark.fault("checkpoints", REFUSED)
def test_somebody_elses_onnx(tmp_path):
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"a\.onnx: not a model that drywall-seg exported"):
        OnnxBackend(tmp_path / "a.onnx")


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (SETTINGS, lambda text: text[:-1], "its settings are not JSON"),
        (SETTINGS, lambda text: json.dumps(json.loads(text) | {"format": 2}), "of format 2, and this version reads 1"),
        (DECODER, lambda text: text[:100] + "?" + text[101:], "is not base64"),
        (DECODER, lambda text: text[: len(text) // 8 * 4], "damaged, or no ONNX"),
        (PROMPT_ENCODER, lambda text: "", "damaged, or no ONNX"),
    ],
)
def test_damaged_metadata(exported, tmp_path, key, change, message):
    model = onnx.load(exported["compact"])
    (entry,) = [entry for entry in model.metadata_props if entry.key == key]
    entry.value = change(entry.value)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=rf"a\.onnx: .*{message}"):
        OnnxBackend(tmp_path / "a.onnx")


@pytest.mark.parametrize("architecture", ["compact", "clipseg"])
def test_missing_packages(exported, monkeypatch, architecture):
    package = {"compact": "onnxruntime", "clipseg": "tokenizers"}[architecture]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{architecture}\.onnx: .* pip install {package}"):
        OnnxBackend(exported[architecture])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"a\.onnx: .* pip install 'drywall-seg\[onnx\]'"):
        export_onnx("compact", "a.onnx")


def test_other_models_are_refused(tmp_path, monkeypatch):
    class Sam3Segmenter(Segmenter):
        pass

    monkeypatch.setattr(export, "load_segmenter", lambda _: Sam3Segmenter())
    with pytest.raises(ValueError, match="facebook/sam3: a Sam3Segmenter; only a compact model or a CLIPSeg"):
        export_onnx("facebook/sam3", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_torch_that_cannot_export(tmp_path, monkeypatch):
    def fail(*_):
        raise torch.onnx.OnnxExporterError("many\nlines")

    monkeypatch.setattr(export, "_graph", fail)
    with pytest.raises(ValueError, match=rf"a\.onnx: torch {re.escape(torch.__version__)} cannot export") as caught:
        export_onnx("compact", tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_stored_thresholds_that_are_no_object(folders, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folders["compact"], model)
    (model / "thresholds.json").write_text("[0.5]")
    with pytest.raises(ValueError, match=rf"{re.escape(str(model / 'thresholds.json'))}: not a JSON object"):
        export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_the_file_needs_its_ending(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pt: the name of an exported model ends in \.onnx"):
        export_onnx("compact", tmp_path / "a.pt")


def test_graphs_of_other_weights_are_not_written(exported, tmp_path, monkeypatch):
    main = onnx.load(exported["compact"])
    parts = {entry.key: stored_graph(entry.value) for entry in main.metadata_props if entry.key != SETTINGS}
    del main.metadata_props[:]
    encode_images = CompactSegmenter.encode_images
    graphs = {encode_images: main, export._decode: parts[DECODER], export._embed_hashes: parts[PROMPT_ENCODER]}
    monkeypatch.setattr(export, "_graph", lambda model, function, *_: graphs[function])
    (tmp_path / "other").mkdir()
    new_compact(480).save(tmp_path / "other")
    out = tmp_path / "out" / "a.onnx"
    with pytest.raises(ValueError, match=r"a\.onnx: not written, since it differs from torch by \d"):
        export_onnx(tmp_path / "other", out)
    assert not list(out.parent.iterdir())
    out.write_bytes(b"what was there")
    with pytest.raises(ValueError, match="not written"):
        export_onnx(tmp_path / "other", out)
    assert [path.read_bytes() for path in out.parent.iterdir()] == [b"what was there"]


def test_a_difference_shows_where_all_probabilities_are_near_0():
    segmenter = new_compact(64)
    with torch.no_grad():
        segmenter.decoder.score.bias.fill_(-40.0)
        expected = TorchBackend(segmenter, "cpu")
        other = new_compact(64)
        other.decoder.score.bias.fill_(-40.5)
    assert largest_difference(expected, expected) == 0
    assert largest_difference(expected, TorchBackend(other, "cpu")) == pytest.approx(0.5 / 40, rel=0.1)


BLOCKED = """
import sys
for name in ("torch", "transformers", "safetensors", "onnx", "onnxscript"):
    sys.modules[name] = None
"""
PREDICT = """
import sys
import numpy as np
from drywall_seg.inference import Predictor, onnx_backend

given = np.load(sys.argv[1])
for path in sys.argv[2:]:
    (answer,) = Predictor.load(path, raw=True).predict(given["photo"], ["segment crack"])
    difference = np.abs(answer.probs - given[path.split("/")[-1]]).max()
    assert difference < 1e-4, (path, difference)
print("predicted", "torch" in sys.modules and sys.modules["torch"])
"""


@pytest.fixture(scope="module")
def expected(folders, exported):
    """A photo, and torch's probabilities under each exported file's name."""
    probs = {
        exported[name].name: Predictor.load(folder, device="cpu").predict(photo("crack"), ["segment crack"])[0].probs
        for name, folder in folders.items()
    }
    path = folders["compact"].parent / "expected.npz"
    np.savez(path, photo=photo("crack"), **probs)
    return path


def test_it_predicts_without_torch_and_transformers(exported, expected):
    command = [sys.executable, "-c", BLOCKED + PREDICT, expected, *exported.values()]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.strip() == "predicted None", result.stderr


@pytest.mark.fault("machines", READ)
@pytest.mark.slow
def test_it_predicts_where_torch_was_never_installed(exported, expected, tmp_path):
    # Built from a copy: setuptools leaves its folders where it builds.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lib", source / "lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, of which pytest keeps the last three
        python = Path(folder) / "bin" / "python"
        for command in (
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "--quiet", *RUNNING],
            [python, "-m", "pip", "install", "--quiet", "--no-deps", source],
        ):
            subprocess.run(command, check=True)
        listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
        assert "drywall-seg" in listed and not re.search(r"^(torch|transformers|onnx) ", listed, re.MULTILINE)
        command = [python, "-c", PREDICT, expected, *exported.values()]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert result.stdout.strip() == "predicted False", result.stderr
        photos, out = tmp_path / "photos", tmp_path / "out"
        photos.mkdir()
        Image.fromarray(np.full((60, 90, 3), 200, np.uint8)).save(photos / "a.png")
        asked = ["--prompt", "segment crack", "--model", exported["compact"], "--out", out, "--coco", "rle"]
        command = [Path(folder) / "bin" / "drywall-seg", "predict", photos, *asked]
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0 and "1 masks" in result.stdout, result.stderr
        assert (out / "a__segment_crack.png").is_file() and (out / "predictions.coco.json").is_file()
