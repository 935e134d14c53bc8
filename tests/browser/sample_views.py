"""Views of the drawn sample, for the tests and for the notebooks that they write."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from drywall_seg.data.manifest import build_manifest
from drywall_seg.inference import Predictor
from drywall_seg.visualization.views import look, val_items

ROOT = Path(__file__).parents[2]


def load(sample_root, folder, per_label=2):
    """The shipped model, and items of val."""
    predictor = Predictor.load("compact")
    return predictor, val_items(predictor, build_manifest(Path(sample_root), Path(folder)), per_label)


def enlarged(view, factor=2):
    """A view at twice its size: the sample is 320 px wide, the exports are 640."""

    def grow(array):
        return array.repeat(factor, axis=0).repeat(factor, axis=1)

    target = None if view.target is None else grow(view.target)
    levels, image = grow(view.levels), np.ascontiguousarray(grow(view.image))
    return replace(view, image=image, levels=levels, target=target, histogram=view.histogram * factor**2)


def views_of(sample_root, folder, per_label=2):
    """Views 640 px wide."""
    predictor, items = load(sample_root, folder, per_label)
    return [enlarged(look(predictor, item)) for item in items]


def cell(sample_root, folder, last):
    """The source of a cell that has all of this, and ends in a line of its own."""
    return "\n".join(
        [
            "import sys",
            f"sys.path.insert(0, {str(ROOT)!r})",
            "from tests.browser.sample_views import load, views_of",
            f"where = {str(sample_root)!r}, {str(folder)!r}",
            last,
        ]
    )


VIEWER = "from drywall_seg.visualization.viewer import threshold_viewer\nthreshold_viewer(views_of(*where))"
SLIDER = """
from drywall_seg.visualization.slider import threshold_slider
predictor, items = load(*where)
cracks_first = sorted(items, key=lambda item: item.prompt != "segment crack")
threshold_slider(predictor, cracks_first)
"""
