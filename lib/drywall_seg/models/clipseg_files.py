"""Loading CLIPSeg: a released checkpoint (hub id or folder), or what a fine-tune saved over one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from drywall_seg.images import INPUT, check_input
from drywall_seg.models.clipseg import CLIPSegSegmenter
from drywall_seg.models.weights import SETTINGS, WEIGHTS, read_settings, read_weights
from drywall_seg.runs import read_object


def load_clipseg(name_or_dir: str, image_size: int | None = None, revision: str | None = None) -> CLIPSegSegmenter:
    """Loads a released checkpoint: a hub id, or a folder laid out as on the hub.

    Raises:
        OSError: If a hub id cannot be found or downloaded (as transformers says it).
        ValueError: If what is there is not a whole CLIPSeg; the message names the file.
    """
    name = str(Path(name_or_dir).resolve()) if Path(name_or_dir).is_dir() else str(name_or_dir)
    config_file = cached_file(name, "config.json", revision=revision)
    if config_file is None or read_object(config_file).get("model_type") != "clipseg":
        raise ValueError(f"{name}: its config.json is missing or does not say model_type clipseg")
    # From here on everything comes from the commit that the configuration came from.
    commit = re.search(r"/snapshots/([0-9a-f]{40})/", Path(config_file).as_posix())
    revision = commit[1] if commit and not Path(name).is_dir() else revision
    model = _read_model(name, revision)
    tokenizer = _read_tokenizer(name, revision, model.config.text_config.vocab_size)
    size, mean, std = _read_preprocessing(name, revision)
    base = {"name": name, "revision": revision}
    return CLIPSegSegmenter(model, tokenizer, image_size or size, mean, std, base)


def load_finetuned(folder: Path, image_size: int | None = None) -> CLIPSegSegmenter:
    """Reads what `CLIPSegSegmenter.save` wrote, over its base where only the decoder was written.

    Raises:
        OSError: If a base on the hub cannot be downloaded.
        ValueError: If the weights do not fit, or the base is gone or another one; the message names the file.
    """
    settings = read_settings(folder, "image_size", "mean", "std", "base")
    check_input(folder / SETTINGS, **{name: settings[name] for name in INPUT})
    size, base = image_size or settings["image_size"], settings["base"]
    if base:
        if not isinstance(base, dict) or not isinstance(base.get("name"), str):
            raise ValueError(f"{folder / SETTINGS}: its base {base!r:.80} names no model")
        if Path(base["name"]).is_absolute() and not Path(base["name"]).is_dir():
            raise ValueError(f"{folder / SETTINGS}: its base {base['name']} is no longer there")
        segmenter = load_clipseg(base["name"], size, base.get("revision"))
        if segmenter.base_hash != base.get("weights"):
            reason = f"its decoder was trained on another base than what {segmenter.base['name']} now holds"
            raise ValueError(f"{folder / SETTINGS}: {reason}")
        segmenter.mean, segmenter.std = tuple(settings["mean"]), tuple(settings["std"])
        read_weights(segmenter.model.decoder, folder / WEIGHTS)
        return segmenter
    config = CLIPSegConfig.from_dict(read_settings(folder, "config")["config"])
    with torch.random.fork_rng(devices=[]):  # weights are drawn only to be overwritten
        model = CLIPSegForImageSegmentation(config)
    tokenizer = _read_tokenizer(str(folder), None, config.text_config.vocab_size)
    segmenter = CLIPSegSegmenter(model, tokenizer, size, settings["mean"], settings["std"])
    read_weights(segmenter.model, folder / WEIGHTS)
    return segmenter


def _file(name: str, revision: str | None, *names: str) -> str | None:
    """Returns the first of these files that the folder or repository has."""
    found = (cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False) for file in names)
    return next((path for path in found if path), None)


def _read_model(name: str, revision: str | None) -> CLIPSegForImageSegmentation:
    # Whatever weights the repository has: the released ones are a pickle, which transformers reads with
    # weights_only; a safetensors copy is not certain to exist, so none is demanded.
    weights = _file(name, revision, WEIGHTS, "pytorch_model.bin")
    if weights is None:
        raise ValueError(f"{name}: holds neither {WEIGHTS} nor pytorch_model.bin")
    try:
        with _quiet_transformers():
            model, report = CLIPSegForImageSegmentation.from_pretrained(
                name, revision=revision, dtype=torch.float32, output_loading_info=True
            )
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{weights}: cannot be read as weights of CLIPSeg ({error})") from error
    if report["missing_keys"]:  # transformers draws them at random and only warns
        missing = sorted(report["missing_keys"])
        raise ValueError(f"{weights}: lacks {len(missing)} weights of CLIPSeg (such as {missing[0]})")
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Holds back the report on old buffers, and the bar: in a notebook a widget that every weight moves."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _read_tokenizer(name: str, revision: str | None, vocab_size: int) -> PreTrainedTokenizerBase:
    # Without its files transformers builds an empty tokenizer, for which every sentence is the same.
    old = [_file(name, revision, file) for file in ("vocab.json", "merges.txt")]
    if not all(old) and not _file(name, revision, "tokenizer.json"):
        raise ValueError(f"{name}: holds neither tokenizer.json nor both vocab.json and merges.txt")
    tokenizer = CLIPTokenizer.from_pretrained(name, revision=revision)
    if len(tokenizer) > vocab_size:
        raise ValueError(f"{name}: its tokenizer knows {len(tokenizer)} tokens, its config.json {vocab_size}")
    return tokenizer


def _read_preprocessing(name: str, revision: str | None) -> tuple[int, list[float], list[float]]:
    """Returns side, mean and std as the checkpoint states them.

    Read as plain JSON: processors differ in class, backend and arguments between versions of transformers.
    """
    path = _file(name, revision, "preprocessor_config.json", "processor_config.json")
    if path is None:
        raise ValueError(f"{name}: holds no preprocessor_config.json")
    stated = read_object(path)
    stated = stated.get("image_processor", stated)
    size = stated.get("size", 352)
    sides = list(size.values()) if isinstance(size, dict) else [size]
    if not sides or any(side != sides[0] for side in sides) or not {"image_mean", "image_std"} <= stated.keys():
        raise ValueError(f"{path}: does not state one side, image_mean and image_std")
    check_input(path, image_size=sides[0], mean=stated["image_mean"], std=stated["image_std"])
    return sides[0], stated["image_mean"], stated["image_std"]
