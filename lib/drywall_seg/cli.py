"""The command line: a thin wrapper over the functions that the notebooks call."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

import click

from drywall_seg import cli_photos

Parameters = tuple[tuple[str, str], ...]

PARAMETERS = click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter; may be given many times."
)
RUN_NAME = click.option("--run-name", help="Folder of the run below outputs_root.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drywall-seg")
def main() -> None:
    """Segment drywall photographs by a sentence: segment crack, segment taping area, trace joint line."""


def parse_value(text: str) -> Any:
    """Reads a value as papermill's command line does: True, False, None, whole and decimal numbers, else text.

    >>> parse_value("8"), parse_value("2e-5"), parse_value("None"), parse_value("photo")
    (8, 2e-05, None, 'photo')
    """
    if text in ("True", "False", "None"):
        return ast.literal_eval(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _collect(parameters: Parameters, run_name: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in (*parameters, *([("run_name", run_name)] if run_name is not None else [])):
        if name in values:
            raise click.UsageError(f"{name} is given twice")
        # A name is text, also where it looks like a number.
        values[name] = text if name == "run_name" else parse_value(text)
    return values


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=42, show_default=True)
@click.option("--screws", is_flag=True, help="Mark the screws too, for a label of one's own.")
def sample(folder: Path, seed: int, screws: bool) -> None:
    """Write a drawn sample export into FOLDER."""
    from drywall_seg.data.sample import write_sample

    click.echo(write_sample(folder, seed, screws=screws))


@main.command()
@click.argument("notebook")
@PARAMETERS
@RUN_NAME
@click.option("--again", is_flag=True, help="Run `all` even if this run has finished; a finished training stays.")
def run(notebook: str, parameters: Parameters, run_name: str | None, again: bool) -> None:
    """Run NOTEBOOK (or `all`) headless; its executed copy and results go into the run's folder."""
    from drywall_seg.notebooks import RUN_ALL, describe_results, run_notebook

    copy = run_notebook(notebook, _collect(parameters, run_name), again)
    click.echo(copy)
    if copy.stem == RUN_ALL:
        click.echo(describe_results(copy.parents[1]))


@main.command()
@PARAMETERS
@RUN_NAME
def train(parameters: Parameters, run_name: str | None) -> None:
    """Train without a notebook, as 02_train does; with torchrun or `accelerate launch` on more than one device."""
    from drywall_seg.config import resolve_config, run_folder_of
    from drywall_seg.training.run import train_everywhere

    config = resolve_config(**_collect(parameters, run_name))
    history = train_everywhere(config)
    if os.environ.get("RANK", "0") == "0":
        click.echo(history.to_string(index=False))
        click.echo(run_folder_of(config))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def sweep(file: Path) -> None:
    """Train and evaluate every run of a sweep FILE (YAML), skip what is finished, and rank them by val."""
    from drywall_seg.sweep import run_sweep

    ranking, folder = run_sweep(file)
    click.echo(ranking.round(4).to_string(index=False))
    click.echo(folder)


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--outputs-root", default="outputs", show_default=True, help="Where the runs' folders are.")
def report(runs: tuple[str, ...], outputs_root: str) -> None:
    """Make the first RUN's report.html again from what is stored, beside the other RUNs."""
    from drywall_seg.config import config_of_run, resolve_path
    from drywall_seg.data.manifest import prepare
    from drywall_seg.runs import run_folder
    from drywall_seg.visualization.report import write_report

    config = config_of_run(runs[0], outputs_root)
    others = [run_folder(resolve_path(outputs_root), name) for name in runs[1:]]
    click.echo(write_report(config, prepare(config), others))


@main.command()
@click.argument("run")
@click.option("--outputs-root", default="outputs", show_default=True, help="Where the runs' folders are.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file; else gallery.html or gallery-SPLIT.html in the run's folder.",
)
@click.option(
    "--order", help="worst (the default, where there are scores), best, doubt, false_alarm, miss, photograph, name"
)
@click.option("--label", help="One label alone, such as crack; else all.")
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "val", "train"]))
@click.option("--limit", default=200, show_default=True, type=click.IntRange(min=1), help="At most so many images.")
@click.option("--megabytes", default=10.0, show_default=True, help="The file is kept under this.")
def gallery(run: str, outputs_root: str, megabytes: float, **options: Any) -> None:
    """Write images of RUN into one HTML file, to move the threshold and correct masks in, without Python."""
    from drywall_seg.config import config_of_run
    from drywall_seg.data.manifest import prepare
    from drywall_seg.visualization.gallery import write_gallery

    config = config_of_run(run, outputs_root)
    out, said = write_gallery(config, prepare(config), budget=round(megabytes * 1e6), **options)
    click.echo(said)
    click.echo(out)


@main.command("import-corrections")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", default="data/annotations", show_default=True, help="Folder of the overlay.")
def corrections(file: Path, out: str) -> None:
    """Take what people corrected in a viewer (its FILE) into data/annotations, for the next 01_prepare and training."""
    from drywall_seg.data.corrections import take_corrections

    click.echo(take_corrections(str(file.absolute()), out))


@main.command()
@click.option("--repeats", default=9, show_default=True, type=click.IntRange(min=1), help="Rounds that are timed.")
@click.option("--data-root", help="Exports, for the evaluation; else the drawn sample.")
@click.option("--only", help="One comparison: speed, prompts, evaluation, training, large or onnx.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the text there too.")
def benchmark(repeats: int, data_root: str | None, only: str | None, out: Path | None) -> None:
    """Time everything that is claimed to be fast beside its usual way, as ratios; prints Markdown."""
    from drywall_seg.benchmark import run_all
    from drywall_seg.runs import whole_file

    text = run_all(repeats, data_root, only)
    click.echo(text)
    if out:
        with whole_file(out) as partial:
            partial.write_text(text, encoding="utf-8")


for command in (cli_photos.predict, cli_photos.inspect, cli_photos.export, cli_photos.monitor):
    main.add_command(command)


def entry() -> None:
    """Runs the command line; an error of the data or of a notebook is one line, not a traceback, and so is Ctrl-C."""
    from drywall_seg.runs import NotebookError

    try:
        sys.exit(main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("\nstopped; no file is half written. Started again, predict, inspect and training go on.", err=True)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError, NotebookError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
