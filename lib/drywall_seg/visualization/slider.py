"""The threshold slider: core widgets over the same views as the viewer, with post-processing and figures, live."""

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image

from drywall_seg.evaluation.delivery import CANDIDATES
from drywall_seg.evaluation.metrics import mask_counts
from drywall_seg.evaluation.thresholds import keep_threshold
from drywall_seg.inference.postprocess import BOXES, PostProcessing, postprocess
from drywall_seg.inference.predict import Predictor
from drywall_seg.inference.scores import first_level
from drywall_seg.visualization.html import plain
from drywall_seg.visualization.static import WithPicture
from drywall_seg.visualization.viewer import draw_still, still_html
from drywall_seg.visualization.views import (
    Item,
    View,
    figures_html,
    look,
    paint,
    pale,
    reduce_by,
    score_counts,
    scores_at,
    threshold_of,
)

SIDE = 640
"""Longer side in pixels at which the slider shows a photo."""
STEPS = {
    "opening": "drop what is thin",
    "closing": "close gaps",
    "join_gap": "join lines",
    "hole_area": "fill holes",
    "min_area": "drop small parts",
    "boxes": "fill boxes",
}


class Shown:
    """A view, and what does not change with the threshold, at the size shown: the photo in pale grey, the target."""

    def __init__(self, view: View):
        self.view = view
        self.factor = math.ceil(max(view.levels.shape) / SIDE)
        self.canvas = pale(Image.fromarray(view.image).reduce(self.factor))  # uint8 (h, w, 3)
        self.target = None if view.target is None else reduce_by(view.target, self.factor)  # (h, w)


@dataclass
class Slider:
    """The widgets, and what they are about."""

    predictor: Predictor
    items: Sequence[Item]
    checkpoint: Path | None
    looking_at: str
    shown: Shown | None = None
    label: str = ""
    """Of the last photo that could be shown."""
    choosing: bool = False
    """While the sentence changes the photos, their widget's changes are not the user's."""

    def __post_init__(self) -> None:
        self.ask = lru_cache(maxsize=4)(lambda number: Shown(look(self.predictor, self.items[number])))
        prompts = list(dict.fromkeys(item.prompt for item in self.items))
        wide = {"style": {"description_width": "6.5em"}, "layout": widgets.Layout(width="min(100%, 38em)")}
        named = [(plain(text), text) for text in prompts]
        self.prompt = widgets.Dropdown(options=named, description="Sentence", **wide)
        self.photo = widgets.Dropdown(options=self.photos(), description="Photo", **wide)
        self.previous = widgets.Button(description="Previous photo")
        self.following = widgets.Button(description="Next photo")
        levels = [(f"{threshold_of(level):.3f}", level) for level in range(256)]
        self.level = widgets.SelectionSlider(options=levels, value=128, description="Threshold", **wide)
        self.truth = widgets.Checkbox(value=True, description="show the truth", indent=False)
        cut = f"empty below presence {self.predictor.presence_cut:.2f}"
        self.cut = widgets.Checkbox(description=cut, indent=False)
        self.steps = {name: widgets.Checkbox(description=words, indent=False) for name, words in STEPS.items()}
        self.picture = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%"))
        self.figures, self.said = widgets.HTML(), widgets.HTML()
        self.keep = widgets.Button(
            description="Keep as threshold for this run", layout=widgets.Layout(width="auto", align_self="flex-start")
        )

    def photos(self) -> list[tuple[str, int]]:
        """Returns the photos of the chosen sentence by name, as a Dropdown takes them."""
        chosen = self.prompt.value
        return [(plain(item.name), number) for number, item in enumerate(self.items) if item.prompt == chosen]


def threshold_slider(
    predictor: Predictor, items: Sequence[Item], checkpoint: Path | None = None, looking_at: str = "val"
) -> widgets.Widget:
    """Shows a photo with its mask while a threshold is moved: figures, post-processing, and keeping what is found.

    Figures of the raw mask come from its score histogram; with a step of post-processing on, they are counted on the
    delivered mask, and say so. Photos are read and asked when they are chosen. A picture of the first stays in a
    saved notebook.

    Args:
        predictor: The model.
        items: Photos and sentences.
        checkpoint: Folder whose thresholds the button writes; None where there is none of the run's own.
        looking_at: What the items are of, which is noted with a threshold that is kept.
    """
    if not items:
        return widgets.HTML("<p>Nothing to show: no photo was given.</p>")
    slider = Slider(predictor, items, checkpoint, looking_at)
    slider.prompt.observe(lambda _: _choose_prompt(slider), "value")
    slider.photo.observe(lambda _: _load(slider), "value")
    slider.previous.on_click(lambda _: _move(slider, -1))
    slider.following.on_click(lambda _: _move(slider, 1))
    for control in (slider.level, slider.truth, slider.cut, *slider.steps.values()):
        control.observe(lambda _: _draw(slider), "value")
    slider.keep.on_click(lambda _: _keep(slider))
    _load(slider)
    row = widgets.Layout(flex_flow="row wrap")
    column = [
        slider.prompt,
        slider.photo,
        widgets.Box([slider.previous, slider.following], layout=row),
        slider.level,
        widgets.Box([slider.picture, slider.figures], layout=row),
        widgets.Box([slider.truth, slider.cut, *slider.steps.values()], layout=row),
        slider.keep,
        slider.said,
    ]
    if slider.shown is None:
        return WithPicture(column, html=slider.said.value, text="the first photo cannot be shown")
    picture, words = draw_still(slider.shown.view)
    png = io.BytesIO()
    picture.save(png, "PNG")
    return WithPicture(column, html=still_html(picture, words), png=png.getvalue(), text=words)


def _choose_prompt(slider: Slider) -> None:
    name = slider.photo.label
    slider.choosing = True
    slider.photo.options = slider.photos()
    if name in dict(slider.photo.options):
        slider.photo.label = name
    slider.choosing = False
    _load(slider)


def _move(slider: Slider, steps: int) -> None:
    slider.photo.index = min(max(slider.photo.index + steps, 0), len(slider.photo.options) - 1)


def _load(slider: Slider) -> None:
    if slider.choosing:
        return
    slider.previous.disabled = slider.photo.index == 0
    slider.following.disabled = slider.photo.index == len(slider.photo.options) - 1
    slider.shown, slider.keep.disabled = None, True
    slider.said.value = "Reading the photo and asking the model…"
    try:
        shown = slider.ask(slider.photo.value)
    except (OSError, ValueError) as error:
        slider.picture.value, slider.figures.value = b"", ""
        slider.said.value = f"<b>Cannot be shown:</b> {html.escape(plain(str(error)))}"
        return
    view = shown.view
    slider.truth.disabled = view.target is None
    slider.keep.disabled = slider.checkpoint is None or not view.understood
    for name, words in STEPS.items():
        chosen = getattr(slider.predictor.postprocessing[view.label], name)
        slider.steps[name].description = f"{words} (as chosen)" if chosen else words
    if view.label != slider.label:  # else the threshold stays where the user moved it
        slider.label, slider.level.value = view.label, min(255, first_level(view.threshold))
    slider.shown, slider.said.value = shown, _words(slider, view)
    _draw(slider)


def _words(slider: Slider, view: View) -> str:
    own = slider.predictor.thresholds[view.label]
    words = [f"The model's threshold for {view.label} is {own:.3f}; presence here is {view.presence:.3f}."]
    if not view.understood:
        words.append(f"This sentence is none of the model's labels' own; it is taken for {view.label}, the nearest.")
    if view.presence < view.presence_cut:
        words.append("Presence is below the model's cut: it delivers an empty mask here.")
    if view.target is None:
        words.append("No truth is known for this photo and sentence.")
    if slider.checkpoint is None:
        words.append("There is no checkpoint of the run's own to keep a threshold in.")
    return html.escape(" ".join(words))


def chosen_steps(slider: Slider) -> PostProcessing:
    """Returns the steps that are switched on: as chosen for the label, or where nothing was, the middle candidate."""
    own = slider.predictor.postprocessing[slider.shown.view.label]
    usual = {name: values[len(values) // 2] for name, values in CANDIDATES.items()} | {"boxes": BOXES[1]}
    on = [name for name, box in slider.steps.items() if box.value]
    return PostProcessing(**{name: getattr(own, name) or usual[name] for name in on})


def _draw(slider: Slider) -> None:
    if slider.shown is None:  # or not yet
        return
    view, level = slider.shown.view, slider.level.value
    mask = (view.levels >= level).view(np.uint8) * np.uint8(255)
    steps = chosen_steps(slider)
    if slider.cut.value and view.presence < view.presence_cut:
        mask = np.zeros_like(mask)
    mask = postprocess(mask, steps)
    if slider.cut.value or steps != PostProcessing():
        counts = mask_counts(mask, mask * np.uint8(0) if view.target is None else view.target)
        scores, what = score_counts(view, *counts), "Of the delivered mask, with the steps below"
    else:
        scores, what = scores_at(view, threshold_of(level)), "Of the raw mask"
    target = slider.shown.target if slider.truth.value else None
    picture = io.BytesIO()
    Image.fromarray(paint(slider.shown.canvas, reduce_by(mask, slider.shown.factor), target)).save(picture, "JPEG")
    slider.picture.value = picture.getvalue()
    slider.figures.value = figures_html(scores, what, target is not None)


def _keep(slider: Slider) -> None:
    view, threshold = slider.shown.view, threshold_of(slider.level.value)
    before = slider.predictor.thresholds[view.label]
    slider.predictor.chosen = keep_threshold(slider.checkpoint, view.label, threshold, slider.looking_at)
    slider.predictor.thresholds[view.label] = threshold
    slider.said.value = html.escape(
        f"{view.label}: {threshold:.3f} is kept, it was {before:.3f}. "
        "Figures of before are of the old one: run 03_evaluate again."
    )
