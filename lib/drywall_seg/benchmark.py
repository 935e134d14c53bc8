"""Every ratio of this project: each beside its usual way in the same run, as one Markdown text."""

import os
import tempfile
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch

from drywall_seg.benchmark_clipseg import (
    CLIPSEG_SIZE,
    SENTENCES,
    benchmark_prompts,
    benchmark_training,
    drawn_photo,
    ratios,
    summarise,
    time_in_turn,
    usual_clipseg,
)
from drywall_seg.benchmark_large import benchmark_large, benchmark_memory
from drywall_seg.config import resolve_config
from drywall_seg.data.manifest import Manifest, build_manifest, prepare
from drywall_seg.data.sample import write_sample
from drywall_seg.evaluation.collect import images_at_once, unseen_rows
from drywall_seg.evaluation.evaluate import evaluate
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.torch_backend import device_name
from drywall_seg.prompts import canonical_prompt


def benchmark(repeats: int = 9, side: int = 640) -> pd.DataFrame:
    """Times the compact model against CLIPSeg's, from a photo in memory to two masks of its own size.

    CLIPSeg has random weights of rd64-refined's shapes, which cost what the released ones do. No mask of it is
    looked at. The photo is drawn, `side` pixels wide and high.

    Returns:
        `summarise`'s table with times_as_fast as the first row: the median of each round's ratio.
    """
    photo = drawn_photo(side)
    predictor = Predictor.load("compact")
    ways = {
        f"CLIPSeg at {CLIPSEG_SIZE}, the usual way": usual_clipseg(photo),
        f"compact at {predictor.backend.image_size}": lambda: [p.mask for p in predictor.predict(photo, SENTENCES)],
    }
    rounds = time_in_turn(ways, repeats)
    table = summarise(rounds, f"{side} px photo, {len(SENTENCES)} sentences")
    return table.assign(times_as_fast=ratios(rounds, 0))


def benchmark_evaluation(manifest: Manifest, repeats: int = 3) -> pd.DataFrame:
    """Times the scoring of a test part with the compact model against predicting the same photos and nothing more.

    Both read the files, encode as many photos at once, and ask for each photo's own labels. Evaluation also reads
    ahead while the model works. The prompt tests have no part in it.

    Returns:
        `summarise`'s table with times_as_long as the first row: the median of each round's ratio.
    """
    predictor = Predictor.load("compact")
    rows, _ = unseen_rows(predictor, manifest, "test")
    photos = [(manifest.image_file(group.iloc[0]), group.label) for _, group in rows.groupby("image_id")]
    asked = [(photo, [canonical_prompt(label) for label in labels]) for photo, labels in photos]
    size = images_at_once()
    batches = [tuple(zip(*asked[i : i + size], strict=True)) for i in range(0, len(asked), size)]
    ways = {
        "prediction": lambda: [len(predictor.predict_batch(files, prompts)) for files, prompts in batches],
        "evaluation": lambda: evaluate(predictor, manifest, "test"),
    }
    rounds = time_in_turn(ways, repeats)
    table = summarise(rounds, f"{len(photos)} test photos, {len(rows)} masks")
    return table.assign(times_as_long=1 / ratios(rounds, 0))


def benchmark_onnx(repeats: int = 9, side: int = 640) -> pd.DataFrame:
    """Times the compact model exported to ONNX against the same model in torch: one photo and two sentences.

    The photo is drawn, `side` pixels wide and high.

    Returns:
        `summarise`'s table with times_as_fast as the first row: the median of each round's ratio.

    Raises:
        ValueError: If a package that ONNX needs is missing.
    """
    from drywall_seg.inference.export import export_onnx

    photo = drawn_photo(side)
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx("compact", Path(folder) / "compact.onnx")
        predictors = {"torch": Predictor.load("compact"), "onnxruntime": Predictor.load(file)}
        rounds = time_in_turn({name: partial(p.predict, photo, SENTENCES) for name, p in predictors.items()}, repeats)
    table = summarise(rounds, f"{side} px photo, {len(SENTENCES)} sentences")
    return table.assign(times_as_fast=ratios(rounds, 0))


def _evaluation(repeats: int, data_root: str | None) -> pd.DataFrame:
    if data_root:
        return benchmark_evaluation(prepare(resolve_config(data_root=data_root)), repeats)
    with tempfile.TemporaryDirectory() as folder:
        manifest = build_manifest(write_sample(Path(folder) / "sample"), Path(folder) / "processed")
        return benchmark_evaluation(manifest, repeats)


FEW = 3
"""Rounds at most, where one takes long."""

COMPARISONS: dict[str, tuple[str, Callable[[int, str | None], list[pd.DataFrame]]]] = {
    "speed": (
        "The compact model beside CLIPSeg of full size as its documentation calls it, from a photo in memory to two "
        "masks of its own size. CLIPSeg's weights are random here and below, which cost what the released ones do.",
        lambda repeats, _: [benchmark(repeats)],
    ),
    "prompts": (
        "CLIPSeg of full size with two sentences. The usual way repeats the photo for each, embeds padded sentences "
        "and runs all 12 vision layers. The other encodes the photo once, in the 10 layers that are read, and decodes "
        "it with two stored embeddings. `of_products` is the time of the bare products (`torch.mm`, `torch.bmm`) by "
        "the row's: above 1 it is faster than they are.",
        lambda repeats, _: [benchmark_prompts(repeats)],
    ),
    "evaluation": (
        "Scoring the test part with the compact model beside predicting the same photos and nothing more.",
        lambda repeats, data_root: [_evaluation(repeats, data_root)],
    ),
    "training": (
        "A whole step of training CLIPSeg of full size at 352 px, without reading photos.",
        lambda repeats, _: [benchmark_training(min(repeats, FEW))],
    ),
    "large": (
        "The compact model on a drawn wall with a crack of 2 px, by tiles beside the whole photo squashed; then what "
        "more pixels cost, each photo in a process of its own (`beyond_mb` is its peak less photo and masks).",
        lambda repeats, _: [benchmark_large(min(repeats, FEW)), benchmark_memory(min(repeats, FEW))],
    ),
    "onnx": (
        "The compact model exported to ONNX beside the same in torch.",
        lambda repeats, _: [benchmark_onnx(repeats)],
    ),
}
"""By name: what is compared, and the tables from rounds and data root."""


def run_all(repeats: int = 9, data_root: str | None = None, only: str | None = None) -> str:
    """Runs every comparison, or one, and returns a Markdown text with its tables.

    Args:
        repeats: Rounds of each, from 1 up; at most 3 where one takes long.
        data_root: Exports, for the evaluation; None for the drawn sample.
        only: A name of `COMPARISONS`; None for all.

    Raises:
        ValueError: If there is no comparison of that name.
    """
    if only is not None and only not in COMPARISONS:
        raise ValueError(f"no comparison {only!r}; there are {', '.join(COMPARISONS)}")
    parts = [f"# Benchmarks\n\n{_circumstances()}"]
    for name in [only] if only else COMPARISONS:
        explanation, compare = COMPARISONS[name]
        missing = [package for package in ("onnxruntime", "onnxscript") if name == "onnx" and not find_spec(package)]
        body = [f"Left out: {missing[0]} is not installed."] if missing else map(_markdown, compare(repeats, data_root))
        parts.append("\n\n".join([f"## {name}", explanation, *body]))
    return "\n\n".join(parts) + "\n"


def _circumstances() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
    return (
        f"{date.today().isoformat()}, {device_name()}, {torch.get_num_threads()} threads, {versions}. Ways take turns "
        "in rounds of one run; seconds are medians of the rounds, ratios medians of each round's ratio. Machines "
        "differ a lot: trust the ratios, not the seconds."
    )


def _markdown(table: pd.DataFrame) -> str:
    head = [table.index.name, *table.columns]
    lines = [head, ["---"] * len(head), *([name, *map(_cell, row)] for name, *row in table.itertuples())]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    rows = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    return f"{table.attrs['rounds']} rounds, load average {load} at their end.\n\n{rows}"


def _cell(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.3g}"
