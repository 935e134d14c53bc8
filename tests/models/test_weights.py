import pickle

import pytest
import torch
from torch import nn

from drywall_seg.models.weights import misfit, read_settings, read_weights, write_weights
from tests.faults.table import REFUSED


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_round_trip_and_bytes(tmp_path):
    module = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    for folder in ("a", "another/place"):
        write_weights(module, tmp_path / folder / "model.safetensors")
    first = (tmp_path / "a/model.safetensors").read_bytes()
    assert first == (tmp_path / "another/place/model.safetensors").read_bytes()
    other = nn.Conv2d(2, 3, 3)
    read_weights(other, tmp_path / "a/model.safetensors")
    assert torch.equal(other.weight, module.weight) and torch.equal(other.bias, module.bias)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model.safetensors"]


def damage(path, kind):
    whole = path.read_bytes()
    contents = {
        "truncated": whole[:-5],
        "cut in the header": whole[:20],
        "empty": b"",
        "a pickle": pickle.dumps(Trap()),
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    }
    path.write_bytes(contents[kind])


@pytest.mark.fault("checkpoints", REFUSED)
@pytest.mark.parametrize("kind", ["truncated", "cut in the header", "empty", "a pickle", "text"])
def test_damaged_weights(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    write_weights(nn.Linear(2, 2), path)
    damage(path, kind)
    with pytest.raises(ValueError, match=f"{path}: cannot be read as safetensors"):
        read_weights(nn.Linear(2, 2), path)


@pytest.mark.fault("checkpoints", REFUSED)
def test_a_torch_file_under_a_wrong_name_is_not_unpickled(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"weight": torch.ones(2, 2), "trap": Trap()}, path)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_weights(nn.Linear(2, 2), path)


def test_missing_weights(tmp_path):
    with pytest.raises(ValueError, match="model.safetensors: no such file"):
        read_weights(nn.Linear(2, 2), tmp_path / "model.safetensors")


@pytest.mark.fault("checkpoints", REFUSED)
def test_other_weights_change_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights(nn.Linear(3, 2), path)
    module = nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"{path}: not the weights of this model: 1 of another shape \(such as weight\)"
    ):
        read_weights(module, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_misfit():
    a, b = torch.zeros(1), torch.zeros(2)
    assert misfit({"x": a}, {"x": a}) == ""
    got = misfit({"x": a, "u": a}, {"x": b, "m": a, "l": a})
    assert got == "2 missing (such as l), 1 unknown (such as u), 1 of another shape (such as x)"


def test_settings(tmp_path):
    with pytest.raises(ValueError, match="segmenter.json: no such file"):
        read_settings(tmp_path)
    (tmp_path / "segmenter.json").write_text('{"mean": 1}')
    assert read_settings(tmp_path, "mean") == {"mean": 1}
    with pytest.raises(ValueError, match="segmenter.json: says nothing of std, base"):
        read_settings(tmp_path, "mean", "std", "base")
