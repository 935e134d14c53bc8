"""A run's folder: trained once, by one process group, with one set of settings."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
from accelerate.utils import broadcast_object_list

from drywall_seg.config import differing_settings, resolve_model, run_folder_of
from drywall_seg.data.manifest import Manifest, prepare
from drywall_seg.inference.predict import THRESHOLDS_FILE
from drywall_seg.inference.torch_backend import device_name
from drywall_seg.models import Segmenter, checkpoint_folder, load_segmenter
from drywall_seg.models.imagenet import imagenet_compact
from drywall_seg.paraphrases import NOUNS, ORDERS
from drywall_seg.prompts import LABELS, OWN_LABELS
from drywall_seg.runs import CHECKPOINT, environment, read_object, single_writer, write_json
from drywall_seg.settings import FILLED_IN, RunConfig
from drywall_seg.training.feature_cache import choose_views
from drywall_seg.training.fit import OnEpoch, fit, training_data
from drywall_seg.training.resume import FOLDER
from drywall_seg.training.state import start_accelerator


def train_everywhere(config: RunConfig) -> pd.DataFrame:
    """Prepares the data and trains, in one process or in each of those that `torchrun` started; returns the history.

    Raises:
        ValueError: As `train_run`.
    """
    with start_accelerator().main_process_first():
        manifest = prepare(config)
    return train_run(config, manifest)


def train_run(config: RunConfig, manifest: Manifest, on_epoch: OnEpoch | None = None) -> pd.DataFrame:
    """Trains a run, goes on where it was stopped, or does nothing where it is finished; returns its history.

    Writes `config.json`, `environment.json`, `history.csv`, `steps.csv` and `checkpoint/` into the run's folder, which
    no second process may write meanwhile. With 0 epochs the loaded model becomes the checkpoint, and only what
    its masks need is chosen on val. A setting that is None for "what pays here" is filled in.

    Raises:
        ValueError: If the run's folder holds a run of other settings or data (a free name is proposed), or another
            process is training it.
    """
    folder, accelerator = run_folder_of(config), start_accelerator()
    with single_writer(folder) if accelerator.is_main_process else nullcontext():
        about = environment(device_name(), manifest.info["fingerprint"])
        begun = (folder / CHECKPOINT, folder / FOLDER, folder / "history.csv")
        if (folder / "config.json").is_file() and any(path.exists() for path in begun):
            config = _check_same_run(folder, config, about["data_fingerprint"])
            if _is_finished(folder):
                shutil.rmtree(folder / FOLDER, ignore_errors=True)  # killed just before it went
                return pd.read_csv(folder / "history.csv")
        if config.start == "imagenet":
            segmenter = imagenet_compact(config.image_size, config.seed)
        else:
            segmenter = load_segmenter(resolve_model(config.model), config.image_size)
            _begin_own_labels(segmenter, resolve_model(config.model))
        if config.epochs:
            segmenter.to(accelerator.device).trainable_parameters(config.trainable)
            views = choose_views(segmenter, training_data(segmenter, manifest, config), config.stored_views)
            config = replace(config, stored_views=broadcast_object_list([views])[0])
        accelerator.wait_for_everyone()  # all have looked at what was there
        if accelerator.is_main_process:
            write_json(folder / "environment.json", about)
            write_json(folder / "config.json", config.to_dict())
        return fit(segmenter, manifest, config, folder, on_epoch)


def _begin_own_labels(segmenter: Segmenter, model: str) -> None:
    """Makes a model ready for those of the user's own labels that it was not trained for."""
    file = checkpoint_folder(model) / THRESHOLDS_FILE
    trained = read_object(file).get("thresholds", {}) if file.is_file() else {}
    if new := [word for own in OWN_LABELS if own.name not in trained for word in own.words]:
        old = [label for label in LABELS if label in trained]
        segmenter.begin_words(new, [order.format(noun) for label in old for order in ORDERS for noun in NOUNS[label]])


def _is_finished(folder: Path) -> bool:
    file = folder / CHECKPOINT / THRESHOLDS_FILE  # what comes last holds the presence cut
    return file.is_file() and "presence_cut" in read_object(file) and (folder / "history.csv").is_file()


def _check_same_run(folder: Path, config: RunConfig, fingerprint: str) -> RunConfig:
    """Returns the settings with what the run filled in itself."""
    stored = read_object(folder / "config.json")
    different = differing_settings(stored, config)
    about = folder / "environment.json"
    if about.is_file() and read_object(about).get("data_fingerprint") != fingerprint:
        different.append("the data, which have changed")
    if different:
        number = next(n for n in range(2, 10_000) if not folder.with_name(f"{folder.name}-{n}").exists())
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(different)}. "
            f"Give another run_name; {folder.name}-{number} is free"
        )
    return replace(config, **{name: stored.get(name) for name in FILLED_IN if getattr(config, name) is None})
