"""Sentences: the labels and how they are asked for, what is absent, and file-name slugs."""

import hashlib
import re
import unicodedata
import zlib

from drywall_seg.project import LABELS_FILE, project_root, read_own_labels

OWN_LABELS = read_own_labels(project_root() / LABELS_FILE, ("crack", "taping_area", "joint_line"))
"""Those that the user has added."""

LABELS = ("crack", "taping_area", "joint_line", *(own.name for own in OWN_LABELS))

TASK_LABELS = ("crack", "taping_area", *(own.name for own in OWN_LABELS))
"""The labels that the exports annotate; `joint_line` comes from this project's overlay."""

TRUTH = {
    "crack": "the export's polygons, RLE and boxes",
    "taping_area": "the export's filled boxes",
    "joint_line": "bands along hand-drawn centre lines",
} | dict.fromkeys((own.name for own in OWN_LABELS), "the export's annotations")
"""What a label's figures are against."""

PROMPTS = {  # the first of each is the canonical sentence
    "crack": ("segment crack", "segment wall crack"),
    "taping_area": ("segment taping area", "segment drywall seam", "segment joint tape", "segment joint/tape"),
    "joint_line": ("trace joint line", "trace seam line", "joint centre line"),
} | {own.name: tuple(f"segment {word}" for word in own.words) for own in OWN_LABELS}

# A crack photograph shows finished wall, a joint photograph raw board: what the one is asked for is not in the
# other. A joint line always lies in a taping area, so those two are never negatives of each other.
_NEVER_TOGETHER = [("crack", "taping_area"), ("crack", "joint_line")]
_NEVER_TOGETHER += [(own.name, other) for own in OWN_LABELS for other in own.absent]
ABSENT_LABELS = {
    label: tuple(o for o in LABELS if (label, o) in _NEVER_TOGETHER or (o, label) in _NEVER_TOGETHER)
    for label in LABELS
}

FUNCTION_WORDS = frozenset(
    "a an the of in on to for me you i we my can could would will please is are there this that be any all every with "
    "at from by it".split()
)
"""Words that say nothing of what is asked for; `hash_text` leaves them out."""


def split_phrases(text: str) -> tuple[str, ...]:
    """Takes a list of phrases apart at its commas; it may run over several lines."""
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


def is_own(text: str) -> bool:
    """Says whether a text asks for what one of the user's own labels stands for, or nearly: then it is not absent.

    Nearly, because `hash_text` takes words apart: for a label `screw`, asking for screwdrivers would teach nothing.
    """
    words = f" {' '.join(text.casefold().split())}"
    return any(f" {word}" in words for own in OWN_LABELS for word in own.words)


ABSENT_THINGS = split_phrases("""
    segment dog, segment bicycle, segment radiator, segment person, segment paint bucket, segment window, segment tree,
    segment ceiling lamp, segment chair, segment car, find the ladder, segment water pipe
""")
ABSENT_THINGS = tuple(text for text in ABSENT_THINGS if not is_own(text))


def canonical_prompt(label: str) -> str:
    """Returns the sentence that stands for a label.

    >>> canonical_prompt("taping_area")
    'segment taping area'

    Raises:
        ValueError: If the label is not one of `LABELS`.
    """
    if label not in PROMPTS:
        raise ValueError(f"unknown label {label!r}; the labels are {', '.join(LABELS)}")
    return PROMPTS[label][0]


def sentence_of(label: str) -> str:
    """Returns a label's canonical sentence, also of one that a model knows and this project does not.

    >>> sentence_of("joint_line"), sentence_of("water_stain")
    ('trace joint line', 'segment water stain')
    """
    return PROMPTS[label][0] if label in PROMPTS else f"segment {label.replace('_', ' ')}"


def slug(prompt: str, max_length: int = 60) -> str:
    """Turns a prompt into the part of a file name that stands for it.

    Letters and digits of any script stay, in lower case; every run of anything else becomes one underscore, so
    no path separator, quote or dot survives. Longer slugs are cut and end in eight digits of the prompt's hash.

    >>> slug("Segment joint/tape?")
    'segment_joint_tape'

    Raises:
        ValueError: If no letter or digit is left, or it holds half a character, as no file can.
    """
    if prompt.encode(errors="replace").decode() != prompt:
        raise ValueError(f"prompt {prompt!r} is not text: it holds bytes that are no UTF-8")
    words = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", prompt).casefold()).strip("_")
    if not words:
        raise ValueError(f"prompt {prompt!r} holds no letter or digit")
    if len(words) > max_length:
        words = f"{words[: max_length - 9]}_{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"
    return words


def slugs(prompts: list[str]) -> list[str]:
    """Returns one slug for each prompt.

    Raises:
        ValueError: If two prompts would write the same file, or if there is no prompt.
    """
    if not prompts:
        raise ValueError("no prompt was given")
    seen: dict[str, str] = {}
    for prompt in prompts:
        name = slug(prompt)
        if name in seen:
            raise ValueError(f"prompts {seen[name]!r} and {prompt!r} would both be saved as {name!r}")
        seen[name] = prompt
    return list(seen)


def hash_text(prompt: str, buckets: int) -> list[int]:
    """Hashes a sentence's words and their character n-grams (3 to 5, with word borders) to bucket numbers.

    Case, punctuation, spacing and function words do not matter. crc32 is stable across machines and Python versions;
    `hash()` is not. After fastText's subwords (Bojanowski et al., 2017, https://arxiv.org/abs/1607.04606).

    Returns:
        Bucket numbers in [0, buckets), in order, repeated where hashes repeat; never empty.
    """
    words = slug(prompt, max_length=10_000).split("_")
    words = [word for word in words if word not in FUNCTION_WORDS] or words
    pieces = []
    for word in words:
        bounded = f"<{word}>"
        pieces.append(bounded)
        pieces += [bounded[i : i + n] for n in (3, 4, 5) for i in range(len(bounded) - n + 1)]
    return [zlib.crc32(piece.encode()) % buckets for piece in pieces]
