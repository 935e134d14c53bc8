import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Sam3Config, Sam3Model

from drywall_seg.config import resolve_config
from drywall_seg.inference import Predictor
from drywall_seg.inference.torch_backend import TorchBackend
from drywall_seg.models import load_segmenter, sam3
from drywall_seg.models.sam3 import Sam3Segmenter, noun_phrase, union_of_instances
from drywall_seg.prompts import LABELS, PROMPTS
from drywall_seg.training.fit import fit
from tests.models.clipseg_folders import write_tokenizer

SIDE = 56
PROMPTS_ASKED = ["segment crack", "segment taping area", "segment dog"]


def tiny_model():
    """A random SAM 3 of a few hundred thousand parameters."""
    part = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.0}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "pretrain_image_size": SIDE,
                "window_size": 2,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 16,
            "max_position_embeddings": 32,
        },
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config={**part, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    torch.manual_seed(0)
    return Sam3Model(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam3")
    tiny_model().save_pretrained(path)
    write_tokenizer(path, True)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    return path


@pytest.fixture(scope="module")
def segmenter(folder):
    return load_segmenter(folder)


def test_shapes_and_one_encode_for_many_prompts(segmenter):
    assert isinstance(segmenter, Sam3Segmenter) and segmenter.image_size == SIDE
    calls = []
    segmenter.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3), np.uint8)
    answers = Predictor(TorchBackend(segmenter)).predict_batch(list(images), [PROMPTS_ASKED] * 2)
    assert [[a.mask.shape for a in group] for group in answers] == [[(40, 60)] * 3] * 2
    assert len(calls) == 1


def test_it_is_the_models_own_answer(segmenter):
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(segmenter.device)
    tokens = segmenter.tokenizer(["crack"], padding="max_length", max_length=32, return_tensors="pt")
    tokens = tokens.to(segmenter.device)
    with torch.no_grad():
        answer = segmenter.model(pixel_values=pixels, **tokens)
        logits = segmenter(pixels, segmenter.encode_prompts(["segment crack"]))
    scores = (answer.pred_logits.sigmoid() * answer.presence_logits.sigmoid())[0]
    masks = torch.nn.functional.interpolate(answer.pred_masks.sigmoid(), (SIDE, SIDE), mode="bilinear")[0] > 0.5
    for threshold in (0.05, float(scores.median()), 0.9):
        union = masks[scores >= threshold].any(0)
        assert torch.equal(torch.sigmoid(logits[0]) >= threshold - 1e-6, union)


def test_union_of_instances():
    masks = torch.full((1, 3, 2, 2), -9.0)
    masks[0, 0, 0, 0] = masks[0, 1, 0] = masks[0, 2, 1, 1] = 9
    probs = union_of_instances(torch.tensor([[0.9, 0.4, 0.2]]), masks, 2)
    assert torch.allclose(probs, torch.tensor([[[0.9, 0.4], [0.0, 0.2]]]))
    assert union_of_instances(torch.zeros(2, 0), torch.zeros(2, 0, 4, 4), 8).sum() == 0


def test_phrases():
    assert {noun_phrase(text) for label in LABELS for text in PROMPTS[label]} == {"crack", "drywall seam"}
    assert noun_phrase("Segment the fire extinguisher!") == "fire extinguisher"


def test_a_saved_one_names_its_weights_and_holds_none(segmenter, folder, tmp_path):
    segmenter.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["segmenter.json"]
    again = load_segmenter(tmp_path)
    for name, tensor in segmenter.state_dict().items():
        assert torch.equal(tensor.cpu(), again.state_dict()[name]), name


def test_a_licence_not_agreed_to(monkeypatch, folder):
    def refuse(*_, **__):
        raise OSError("You are trying to access a gated repo.")

    monkeypatch.setattr(sam3.Sam3Model, "from_pretrained", refuse)
    with pytest.raises(OSError, match="agree to their licence.*log in"):
        load_segmenter(folder)
    monkeypatch.setattr("transformers.utils.cached_file", refuse)  # where a hub id is refused first
    with pytest.raises(OSError, match="facebook/sam3: .*agree to their licence.*log in"):
        load_segmenter("facebook/sam3")


def test_its_thresholds_are_chosen_on_val_without_a_training(folder, sample_manifest, tmp_path):
    config = resolve_config(preset="sam3_zeroshot_subset100", model=str(folder), image_size=None, run_name="sam")
    segmenter = load_segmenter(folder)
    few = sample_manifest.table.groupby(["label", "split"]).head(2).reset_index(drop=True)
    history = fit(segmenter, replace(sample_manifest, table=few), config, tmp_path)
    stored = json.loads((tmp_path / "checkpoint" / "thresholds.json").read_text())
    assert history.empty and stored["chosen"] == "on val: max mean Dice" and set(stored["thresholds"]) == set(few.label)
    assert "presence_cut" in stored
