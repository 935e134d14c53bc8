"""The project's folder, and the labels that its user has added to the three that it comes with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS_FILE = "data/labels.yaml"

KEYS = ("exports", "words", "absent")


@dataclass(frozen=True)
class OwnLabel:
    """A label of the user's own: what `data/labels.yaml` says of it."""

    name: str
    exports: tuple[str, ...]
    """Patterns of the names of the folders with its exports, in lower case; `screws*` for the label `screw`."""
    words: tuple[str, ...]
    """What people call it, in lower case; its name first, whose sentence is the canonical one."""
    absent: tuple[str, ...]
    """Labels whose photographs never show it, and whose things its photographs never show."""


def project_root() -> Path:
    """Returns the project's folder: the nearest one upward of the working directory that holds the notebooks.

    Else the one that this library lies in; else, for a library installed without its project, the working directory.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "notebooks" / "00_run_all.ipynb").is_file():
            return folder
    return here


def read_own_labels(file: Path, known: tuple[str, ...]) -> list[OwnLabel]:
    """Reads a labels file, in YAML: names, and for each what it has of the keys `KEYS`, each a list of texts.

    Args:
        file: Need not be there.
        known: The labels that there are already.

    Returns:
        The labels in the file's order; none where there is no file.

    Raises:
        ValueError: If it is not such a file; the message names the file, the label and the value.
    """
    if not file.is_file():
        return []
    import yaml  # only who has such a file needs it

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: {content!r:.80} is not labels by name")
    for name in content:
        if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or name in known:
            taken = "is there already" if name in known else "is not small letters, digits and underscores"
            raise ValueError(f"{file}: the label {name!r:.80} {taken}")
    return [_own_label(file, name, about or {}, (*known, *content)) for name, about in content.items()]


def _own_label(file: Path, name: str, about: Any, labels: tuple[str, ...]) -> OwnLabel:
    if not isinstance(about, dict) or not set(about) <= set(KEYS):
        raise ValueError(f"{file}: {name}: {about!r:.120} has other keys than {', '.join(KEYS)}")
    for key, texts in about.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{file}: {name}: {key} is {texts!r:.120}, not a list of texts")
    absent = tuple(about.get("absent", ()))
    if wrong := [label for label in absent if label not in labels or label == name]:
        raise ValueError(
            f"{file}: {name}: absent names {wrong[0]!r}, not one of the other labels ({', '.join(labels)})"
        )
    words = [name.replace("_", " "), *(" ".join(text.casefold().split()) for text in about.get("words", ()))]
    exports = tuple(text.casefold() for text in about.get("exports", (f"{name}*",)))
    return OwnLabel(name, exports, tuple(dict.fromkeys(words)), absent)
