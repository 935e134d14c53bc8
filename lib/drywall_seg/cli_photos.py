"""The commands for photos and their models: predict, export, monitor."""

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drywall_seg.inference import Predictor

MODEL = click.option(
    "--model",
    default="compact",
    show_default=True,
    help="compact, a checkpoint folder, a hub id, or a .onnx.",
)


def load_predictor(model: str, raw: bool, tile: int | None) -> "Predictor":
    """Loads a model as the options want it; in a worker too."""
    from drywall_seg.inference import Predictor

    predictor = Predictor.load(model, raw=raw)
    predictor.tile = tile
    return predictor


def _mention(errors: dict[str, str], renamed: dict[str, str]) -> None:
    """Says what went otherwise than asked; ends with 1 where a photo was left out."""
    for photo, stem in renamed.items():
        click.echo(f"{photo}: saved as {stem}, another photo has its name", err=True)
    for message in errors.values():
        click.echo(f"error: {message}", err=True)
    if errors:
        sys.exit(1)


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--prompt", "prompts", multiple=True, required=True, help="A sentence; may be given many times.")
@MODEL
@click.option("--out", required=True, help="Folder for the masks, or an address such as s3://bucket/folder.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="For all prompts; else the model's own.")
@click.option("--raw", is_flag=True, help="Leave post-processing out.")
@click.option("--tile", type=int, help="Side of the tiles in pixels, 0 for none; else chosen by the photo's size.")
@click.option("--coco", type=click.Choice(["rle", "polygons"]), help="Write predictions.coco.json too.")
@click.option("--probs", is_flag=True, help="Write probabilities too, as 16-bit PNG.")
@click.option("--overlays", is_flag=True, help="Write masks laid over their photos too, as JPEG.")
@click.option("--log", default="", help="Add a line for each mask to this file, for `monitor`.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Of ray; else one for each GPU, or for two cores.")
def predict(
    paths: tuple[str, ...],
    prompts: tuple[str, ...],
    model: str,
    out: str,
    threshold: float | None,
    raw: bool,
    tile: int | None,
    coco: str | None,
    probs: bool,
    overlays: bool,
    log: str,
    engine: str,
    workers: int | None,
) -> None:
    """Write a mask for every photo in PATHS (files, folders, addresses) and every prompt.

    Stopped and started again it goes on: what is there and whole is kept.
    """
    from drywall_seg.inference.files import Wanted, predict_files

    draw = None
    if overlays:
        from drywall_seg.visualization.panels import draw_overlay as draw
    wanted = Wanted(prompts, threshold, probs, draw, log)  # refuses before a model is loaded
    run, load = None, partial(load_predictor, model, raw, tile)
    if engine == "ray":
        from drywall_seg.inference.cluster import ray_engine

        run = ray_engine(load, workers)
    table, errors, renamed = predict_files(load(), paths, wanted, out, coco or "", run)
    click.echo(f"{len(table)} masks in {out}")
    _mention(errors, renamed)
