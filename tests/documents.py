"""What the documents say: their commands, links and quotations; and with what small data a command is run."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "outputs/README.md", "lib/drywall_seg/models/MODEL_CARD.md"]
DOCUMENTS = sorted([*(ROOT / name for name in NAMES), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md")])
BIN = ".venv/bin/"

STANDS_FOR = {  # what a document leaves to its reader, and what it is in a test: seen from the copied project
    "PHOTO_OR_FOLDER": "../photos",
    "PHOTO": "../photos/wall.jpg",
    "PATH_TO_EXPORTS": "../exports",
    "../shared/data": "../exports",
    "data/processed/data": "data/processed/exports",
    "CORRECTIONS_FILE": "../corrections.json",
    "s3://BUCKET": "file://{root}/bucket",
    "YOUR_KEY": "planted-key",
    "WORKSPACE/PROJECT/VERSION": "team/cracks/3",
}
SMALL = {"epochs": "1", "image_size": "64", "batch_size": "8"}
"""Settings of a training that is to be quick."""
OTHERS_RUN = {"setup", "test", "lint", "test-faults", "test-browser", "test-colab", "test-documents", "test-all"}
"""Targets that CI, or the tests of `make test-all`, consist of: here it is only looked at what they would do."""
EXPANDED = {"demo", "train-compact", "docs/example.png", "docs/compact.png", "docs/viewer.png"}
"""Targets whose lines are run as commands of the document."""


@dataclass(frozen=True)
class Command:
    """A command of a document."""

    document: str
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, compare=False, hash=False)

    def __str__(self) -> str:
        return shlex.join([*(f"{name}={value}" for name, value in self.env.items()), *self.words])


def blocks(path: Path, language: str) -> list[str]:
    """Returns the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[Command]:
    """Returns the commands of a document's `bash` blocks, in order."""
    lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    name = path.relative_to(ROOT).as_posix()
    return [command for line in lines if (command := read_command(name, line))]


def read_command(document: str, line: str) -> Command | None:
    """Reads a line of a shell: variables, then words; None where there is only a comment.

    Raises:
        ValueError: If it holds more of a shell's language than that: a test could not add to it.
    """
    words, env = shlex.split(line, comments=True), {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    if odd := [word for word in words if re.fullmatch(r"[|&;<>]+|.*[$`*].*|.*;", word)]:
        raise ValueError(f"{document}: {line!r}: {odd[0]!r} is a shell's; write a command a line")
    return Command(document, tuple(words), env) if words else None


def fill_in(text: str, root: str = "/project") -> str:
    """Puts small data in the place of what a document leaves to its reader."""
    for name, stand_in in STANDS_FOR.items():
        text = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w])", stand_in.format(root=root), text)
    return text


def left_open(words: tuple[str, ...]) -> list[str]:
    """Returns words in capitals, which nobody has filled in."""
    return [word for word in words if re.search(r"(?<![\w.])[A-Z][A-Z_]{2,}(?![\w.])", word)]


def made_small(words: tuple[str, ...], declared: dict[str, set[str]]) -> list[str]:
    """Adds what makes a command quick.

    Args:
        words: Filled in.
        declared: The parameters of each notebook, by its name.
    """
    if BIN + "drywall-seg" not in words:
        if words[:4] == (BIN + "python", "-m", "pip", "install"):  # what is there already; nothing is fetched
            return [*words, "--quiet", "--dry-run", "--no-deps", "--no-index", "--no-build-isolation"]
        if words[:3] == (BIN + "python", "-m", "pytest"):  # which CI runs
            return [*words, "--collect-only", "--quiet"]
        return list(words)
    place = words.index(BIN + "drywall-seg")
    launcher, (program, name, *rest) = list(words[:place]), words[place:]
    if name == "benchmark":
        rest += ["--repeats", "1", *([] if "--only" in rest else ["--only", "evaluation"])]
    if name == "run":
        notebook = "00_run_all" if rest[0] == "all" else rest[0]
        rest = with_parameters(rest, {n: v for n, v in SMALL.items() if n in declared[notebook]})
    if name == "train":
        rest = with_parameters(rest, SMALL | {"train_size": "64"})
    if any(name == "preset" and "clipseg" in value for name, value in zip(rest, rest[1:], strict=False)):
        rest = with_parameters(rest, {"model": "../clipseg"})
    return [*launcher, program, name, *rest]


def with_parameters(rest: list[str], values: dict[str, str]) -> list[str]:
    """Puts `-p NAME VALUE` at the end, in the place of those of that name; no epochs stay none."""
    if "epochs 0" in " ".join(rest):
        values = {name: value for name, value in values.items() if name != "epochs"}
    kept, left = [], list(rest)
    while left:
        if left[0] == "-p" and left[1] in values:
            del left[:3]
        else:
            kept.append(left.pop(0))
    return kept + [text for name, value in values.items() for text in ("-p", name, value)]


def code_spans(path: Path) -> list[str]:
    """Returns what stands in a document's text as code."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def links(path: Path) -> list[str]:
    """Returns the targets of a document's links and pictures."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(path: Path) -> set[str]:
    """Returns the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def quotations(path: Path) -> list[str]:
    """Returns the error texts in the first column of a document's tables."""
    rows = [line.split(" | ")[0] for line in path.read_text().splitlines() if line.startswith("| `")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
