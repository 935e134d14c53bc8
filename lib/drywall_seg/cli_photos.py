"""The commands for photos and their models: predict, inspect, export, monitor."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from drywall_seg.inference import Predictor

MODEL = click.option(
    "--model", default="compact", show_default=True, help="compact, a checkpoint folder, a hub id, or a .onnx."
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
    from drywall_seg.prompts import LABELS, PROMPTS, canonical_prompt, slug

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
    known = {slug(text) for texts in PROMPTS.values() for text in texts}
    for prompt in prompts:
        if slug(prompt) not in known and not table.area_share[table.prompt == prompt].any():
            ours = ", ".join(map(canonical_prompt, LABELS))
            click.echo(f"{prompt!r}: nothing found; this project's own sentences are {ours}", err=True)
    _mention(errors, renamed)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for report.html and its tables.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    default=("segment crack", "trace joint line"),
    show_default=True,
    help="A sentence; may be given many times.",
)
@MODEL
@click.option("--raw", is_flag=True, help="Leave post-processing out.")
@click.option("--tile", type=int, help="Side of the tiles in pixels, 0 for none; else chosen by the photo's size.")
@click.option("--mm-per-pixel", help="One scale for all photos, in millimetres on the wall.")
@click.option("--two-points", metavar="X0,Y0,X1,Y1,MM", help="Or two points in pixels, and how far apart they are.")
@click.option(
    "--rectangle", metavar="X0,Y0,...,W,H", help="Or a rectangle's corners from the upper left on, and its mm."
)
@click.option("--scales", type=click.Path(path_type=Path), help="Or a CSV: photo, and one of these for each.")
@click.option("--limits", metavar="NAME=MM,...", help="Widest crack of each class; else those of BRE Digest 251.")
@click.option("--no-flips", is_flag=True, help="Do not ask the mirrored photo too: half the time, less to review by.")
def inspect(
    folder: Path,
    out: Path,
    prompts: tuple[str, ...],
    model: str,
    raw: bool,
    tile: int | None,
    limits: str | None,
    no_flips: bool,
    **scales: str | Path | None,
) -> None:
    """Measure the cracks and joints on the photos of FOLDER, and write a report of them.

    A report.html for the phone and for paper, findings.csv, photos.csv, and review.csv: what to look at first.
    Stopped and started again it goes on with the photos that are left.
    """
    from drywall_seg.inference.measure import BRE_251
    from drywall_seg.inference.scales import choose_scale, parse_limits
    from drywall_seg.inference.site import find_site_photos
    from drywall_seg.prompts import slugs
    from drywall_seg.visualization.site_report import inspect_site

    scale, classes = choose_scale(**scales), parse_limits(limits) if limits else BRE_251
    slugs(list(prompts)), find_site_photos(folder, scale)  # refuse before a model is loaded
    site = inspect_site(load_predictor(model, raw, tile), folder, out, list(prompts), scale, classes, not no_flips)
    click.echo(f"{len(site.findings)} findings in {site.photos.photo.nunique()} photos: {out / 'report.html'}")
    _mention(site.errors, {})


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
def export(model: str, out: Path) -> None:
    """Write MODEL (compact, a checkpoint folder, or a hub id) to OUT.onnx, which runs without torch."""
    from drywall_seg.inference.export import export_onnx

    click.echo(export_onnx(model, out))


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@MODEL
@click.option("--last", type=click.IntRange(min=1), help="Only so many entries, the latest; else all.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw it over time into this file (png, svg, pdf).")
def monitor(log: Path, model: str, last: int | None, out: Path | None) -> None:
    """Compare the entries of LOG, which `predict --log` writes, with the photos that MODEL's thresholds came from."""
    from drywall_seg.inference import Predictor
    from drywall_seg.inference.monitor import compare, read_log

    entries, predictor = read_log(log), Predictor.load(model)
    if skipped := entries.attrs["skipped_lines"]:
        click.echo(f"{log}: {skipped} lines are not whole and left out", err=True)
    own = entries[entries["model"] == predictor.backend.model_hash]
    if len(own) < len(entries):
        click.echo(f"{log}: {len(entries) - len(own)} entries are of other models than {model} and left out", err=True)
    own = own.tail(last or len(own))
    table = compare(own, predictor.reference)
    click.echo(table.round(3).to_string(index=False) if len(table) else f"no entry of {model}")
    for row in table[table["warning"] != ""].itertuples():
        click.echo(f"warning: {row.label}: {row.warning} (n {row.n})", err=True)
    if not predictor.reference:
        click.echo(f"{model}: knows no photos to compare with", err=True)
    if out:
        from drywall_seg.visualization.monitoring import plot_monitoring
        from drywall_seg.visualization.panels import save_figure

        save_figure(plot_monitoring(own, predictor.reference), out)
