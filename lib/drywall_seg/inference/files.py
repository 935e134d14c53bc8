"""Photos from disk to masks on disk."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from drywall_seg.images import ImageError, list_images
from drywall_seg.inference.predict import Predictor
from drywall_seg.prompts import slug, slugs
from drywall_seg.runs import progress, write_mask

COLUMNS = ["photo", "prompt", "mask", "presence", "area_share", "threshold"]


class OutputNames:
    """Gives out mask names within one folder, `<image stem>__<slug>.png`, never the same one for two images."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}  # image by stem, folded: some file systems do not tell "A" from "a"
        self._stem: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        """The stem given to each image that could not have its own."""

    def stem(self, image: str, stem: str) -> str:
        """Returns the stem for an image (any name that tells it from others); later equal ones get `<stem>-2`, ..."""
        if image not in self._stem:
            free, number = stem, 1
            while free.casefold() in self._owner:
                number += 1
                free = f"{stem}-{number}"
            if number > 1:
                self.renamed[image] = free
            self._owner[free.casefold()] = image
            self._stem[image] = free
        return self._stem[image]

    def mask_name(self, image: str, stem: str, prompt: str) -> str:
        """Returns the file name of the mask of an image and a prompt."""
        return f"{self.stem(image, stem)}__{slug(prompt)}.png"


def predict_files(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike],
    prompts: Sequence[str],
    out: str | os.PathLike,
    threshold: float | None = None,
) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """Writes a mask for every photo and prompt.

    A photo that is named itself goes flat into `out`, those of a folder under their path in it. A photo that cannot
    be read is left out, and the others go on.

    Args:
        predictor: The model.
        paths: Photos and folders of photos.
        prompts: The sentences; no two with the same slug.
        out: Folder for the masks. Where it lies in a folder of photos, nothing in it is taken for a photo; where it is
            that folder, no mask of these prompts.
        threshold: For all prompts; None for the stored ones.

    Returns:
        A table (photo, prompt, mask, presence, area_share, threshold); what was wrong, by photo; and the stem given to
        each photo that could not have its own.

    Raises:
        ValueError: If two prompts collide, or a path is no file or folder, or no photo was found.
    """
    out = Path(out)
    photos = dict(_find_photos([Path(path) for path in paths], out, slugs(list(prompts))))
    if not photos:
        raise ValueError(f"no photo in {', '.join(map(str, paths))}")
    names: dict[Path, OutputNames] = {}
    results, errors, renamed = [], {}, {}
    for photo, subfolder in progress(photos.items(), "predicting", "photo"):
        naming = names.setdefault(subfolder, OutputNames())
        try:
            predictions = predictor.predict(photo, list(prompts), threshold)
            files = [out / subfolder / naming.mask_name(str(photo), photo.stem, text) for text in prompts]
            for file, prediction in zip(files, predictions, strict=True):
                write_mask(file, prediction.mask)
        except (ImageError, OSError) as error:
            errors[str(photo)] = str(error)
            continue
        for file, prediction in zip(files, predictions, strict=True):
            area = float(np.count_nonzero(prediction.mask) / prediction.mask.size)
            results.append([str(photo), prediction.prompt, str(file), prediction.presence, area, prediction.threshold])
        if str(photo) in naming.renamed:
            renamed[str(photo)] = naming.renamed[str(photo)]
    return pd.DataFrame(results, columns=COLUMNS), errors, renamed


def _find_photos(paths: list[Path], out: Path, names: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yields photos, each with the folder below `out` that its masks go to."""
    for path in paths:
        if path.is_dir():
            for photo in list_images(path):
                inside = out.resolve() in photo.resolve().parents
                own = out.resolve() != path.resolve() and path.resolve() in out.resolve().parents
                if not inside or not (own or photo.name.endswith(tuple(f"__{name}.png" for name in names))):
                    yield photo, photo.parent.relative_to(path)
        elif path.exists():
            yield path, Path()
        else:
            raise ValueError(f"{path}: no such file or folder")
