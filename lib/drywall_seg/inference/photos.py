"""Which photos there are to predict, and how what is written for each is named."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drywall_seg.images import IMAGE_SUFFIXES, list_images
from drywall_seg.prompts import slug
from drywall_seg.runs import is_address

WRITTEN = ("", "__probs", "__overlay")
"""What the names of masks, probabilities and overlays end in, after the prompt."""


@dataclass(frozen=True)
class Job:
    """A photo, and where below the output folder its files go."""

    photo: str
    folder: str
    """Below `out`; empty for `out` itself."""
    stem: str

    def file(self, prompt: str, ending: str = ".png") -> str:
        """Returns the name below `out` of a file of this photo and a prompt."""
        name = f"{self.stem}__{slug(prompt)}{ending}"
        return f"{self.folder}/{name}" if self.folder else name


class OutputNames:
    """Gives out mask names within one folder, `<image stem>__<slug>.png`, never the same one for two images."""

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}  # image by stem, folded
        self._stem: dict[str, str] = {}

    def keep(self, image: str, stem: str) -> None:
        """Notes the stem that an image has already."""
        self._owner[_folded(stem)] = image
        self._stem[image] = stem

    def stem(self, image: str, stem: str) -> str:
        """Returns the stem for an image (any name that tells it from others); later equal ones get `<stem>-2`, ..."""
        if image not in self._stem:
            free, number = stem, 1
            while _folded(free) in self._owner:
                number += 1
                free = f"{stem}-{number}"
            self.keep(image, free)
        return self._stem[image]

    def mask_name(self, image: str, stem: str, prompt: str) -> str:
        """Returns the file name of the mask of an image and a prompt."""
        return Job(image, "", self.stem(image, stem)).file(prompt)


def _folded(stem: str) -> str:
    """Returns what some file systems take a name for: neither case nor ways of accents are told apart."""
    return unicodedata.normalize("NFC", stem).casefold()


def find_photos(paths: Iterable[str], out: str, prompts: Iterable[str]) -> dict[str, str]:
    """Returns photos, each with its folder below `out`: none for those that are named themselves.

    Raises:
        ValueError: If a path is no file or folder, or nothing was found.
    """
    found: dict[str, str] = {}
    paths, written = list(paths), [f"__{slug(prompt)}{ending}" for prompt in prompts for ending in WRITTEN]
    for path in paths:
        found.update(_at_address(path) if is_address(path) else _here(Path(path), Path(out), tuple(written)))
    if not found:
        raise ValueError(f"no photo in {', '.join(paths)}")
    return found


def _here(path: Path, out: Path, written: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        root, target = _real(path), _real(out)
        for photo in list_images(path):
            inside = target in _real(photo).parents
            own = target != root and root in target.parents
            if not inside or not (own or photo.stem.endswith(written)):
                folder = photo.parent.relative_to(path).as_posix()
                yield str(photo), "" if folder == "." else folder
    elif path.exists():
        yield str(path), ""
    else:
        raise ValueError(f"{path}: no such file or folder")


def _real(path: Path) -> Path:
    """Returns a path with links followed; `Path.resolve` would not stand one that leads to itself."""
    return Path(os.path.realpath(path))


def _at_address(address: str) -> Iterator[tuple[str, str]]:
    import fsspec  # not needed for photos on this machine

    file_system, root = fsspec.url_to_fs(address)
    if file_system.isfile(root):
        yield address, ""
        return
    for name in sorted(file_system.find(root)):
        inner = PurePosixPath(name).relative_to(root.rstrip("/"))
        if inner.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in inner.parts):
            yield file_system.unstrip_protocol(name), "" if inner.parent == PurePosixPath() else str(inner.parent)


def name_jobs(found: dict[str, str], kept: Iterable[tuple[str, str, str]]) -> list[Job]:
    """Names what is written for each photo of `find_photos`, by its folder.

    What an earlier run has given, photo, folder and stem in `kept`, stays, whatever photos have come since.
    """
    names: dict[str, OutputNames] = defaultdict(OutputNames)
    for photo, folder, stem in kept:
        names[folder].keep(photo, stem)
    return [Job(photo, folder, names[folder].stem(photo, PurePosixPath(photo).stem)) for photo, folder in found.items()]
