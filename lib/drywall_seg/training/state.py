"""What a training is made of, and how it becomes a stored state and comes back."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor

from drywall_seg.data.dataset import PromptedDataset
from drywall_seg.inference.torch_backend import default_device, half_precision
from drywall_seg.models import Segmenter
from drywall_seg.settings import RunConfig
from drywall_seg.training.feature_cache import FeatureStore, open_store
from drywall_seg.training.optimisation import parameter_groups, trained_tensors
from drywall_seg.training.resume import load_state, save_state


@dataclass
class Training:
    """What a training is made of, and what changes as it goes."""

    config: RunConfig
    segmenter: Segmenter
    accelerator: Accelerator
    dataset: PromptedDataset
    optimizer: Any
    """As accelerate wraps it."""
    micro_batch: int
    """Images that a device works on at once."""
    store: FeatureStore | None
    average: dict[str, Tensor] = field(default_factory=dict)
    """Of the weights, by name; empty where none is kept."""
    losses: list[float] = field(default_factory=list)
    """Of each step so far."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row for each finished epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last one perhaps a small one."""
        return math.ceil(len(self.dataset) / self.config.batch_size)

    @property
    def n_steps(self) -> int:
        """Of the whole training."""
        return self.config.epochs * self.steps_per_epoch


def start_accelerator() -> Accelerator:
    """Returns accelerate's view of device, half precision and the processes that `torchrun` started, if it did."""
    device = default_device()
    kinds = {None: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))  # while the first one reads new data, say
    return Accelerator(mixed_precision=kinds[half_precision(device)], cpu=device == "cpu", kwargs_handlers=[patience])


def start_training(
    segmenter: Segmenter, config: RunConfig, dataset: PromptedDataset, accelerator: Accelerator
) -> Training:
    """Freezes what is not trained, and makes the optimiser and, where one is kept, the average."""
    optimizer = torch.optim.AdamW(parameter_groups(segmenter, config), weight_decay=config.weight_decay)
    share = math.ceil(config.batch_size / accelerator.num_processes)
    training = Training(
        config,
        segmenter,
        accelerator,
        dataset,
        accelerator.prepare(optimizer),
        min(config.micro_batch or share, share),
        open_store(segmenter, dataset) if dataset.stored_views else None,
    )
    if config.ema_decay:
        training.average = {name: tensor.detach().clone() for name, tensor in trained_tensors(segmenter).items()}
    return training


def save_training(training: Training, folder: Path) -> None:
    """Stores the state in the run's folder; the first process does."""
    if not training.accelerator.is_main_process:
        return
    states = training.optimizer.optimizer.state_dict()["state"]
    generators = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    tensors = {
        **{f"weights/{name}": tensor for name, tensor in trained_tensors(training.segmenter).items()},
        **{f"average/{name}": tensor for name, tensor in training.average.items()},
        **{f"optimizer/{i}/{name}": tensor for i, state in states.items() for name, tensor in state.items()},
        **{f"generator/{i}": state for i, state in enumerate(generators)},
    }
    scaler = training.accelerator.scaler
    info = {
        "losses": training.losses,
        "history": training.history,
        "hard": training.dataset.hard,
        "micro_batch": training.micro_batch,
        "scaler": scaler.state_dict() if scaler else None,
    }
    save_state(folder, len(training.losses), tensors, info)


@torch.no_grad()
def restore_training(training: Training, folder: Path) -> None:
    """Goes back to the newest stored state that is whole; changes nothing where there is none."""
    stored = load_state(folder)
    if not stored:
        return
    tensors, info = stored
    into = {"weights": trained_tensors(training.segmenter), "average": training.average}
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind in into:
            into[kind][name].copy_(tensor)
        elif kind == "optimizer":
            number, _, name = name.partition("/")
            states.setdefault(int(number), {})[name] = tensor
        elif name == "0":
            torch.set_rng_state(tensor)
        elif int(name) <= torch.cuda.device_count():
            torch.cuda.set_rng_state(tensor, int(name) - 1)
    optimizer = training.optimizer.optimizer
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    training.losses, training.history = info["losses"], info["history"]
    training.dataset.hard = [(number, prompt) for number, prompt in info["hard"]]
    training.micro_batch = min(info["micro_batch"], training.micro_batch)
    if training.accelerator.scaler and info["scaler"]:  # the run may have begun on another kind of device
        training.accelerator.scaler.load_state_dict(info["scaler"])
