"""The state of a training between two epochs, as safetensors and JSON."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from drywall_seg.runs import read_json, whole_folder, write_json

FOLDER = "resume"


def save_state(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    others: dict[str, Any],
) -> None:
    """Writes `folder/resume`: the modules' and the optimiser's tensors, and what else is plain JSON."""
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": tensor for key, tensor in state.items()}
    with whole_folder(folder / FOLDER) as partial:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial / "state.safetensors"
        )
        write_json(partial / "state.json", others)


def load_state(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restores what `save_state` wrote, and returns the JSON part; None where there is none."""
    if not (folder / FOLDER / "state.json").is_file():
        return None
    tensors = load_file(folder / FOLDER / "state.safetensors")
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, number, key = name.split("/")
            states.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return read_json(folder / FOLDER / "state.json")
