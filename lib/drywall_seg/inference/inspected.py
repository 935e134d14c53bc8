"""What a stopped inspection has said of its photos already, so that the same one goes on with the others."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drywall_seg.inference.findings import FINDINGS
from drywall_seg.inference.journal import source_state
from drywall_seg.inference.measure import Scale
from drywall_seg.runs import read_object, whole_file

FOLDER = ".inspected"
"""In the report's folder, until the report is there; hidden, so that its pictures are nobody's photos."""
_GRID = np.stack(np.meshgrid(*2 * [np.arange(-2000.0, 8001, 1000)]), axis=-1).reshape(-1, 2)
"""Points (x, y) in pixels; what a scale makes of them tells it from any other."""


@dataclass(frozen=True)
class Inspected:
    """A folder with a record and a picture of each photo, `<number>.json` and `<number>.jpg`."""

    folder: Path
    settings: str
    """Stands for all that findings and pictures depend on besides the photo and its scale."""

    def key(self, name: str, photo: Path, scale: Scale | None) -> str:
        """Stands for all that a record depends on.

        Raises:
            OSError: If the photo is not there.
        """
        measured = None if scale is None else scale(_GRID).tolist()
        about = json.dumps([self.settings, name, source_state(str(photo)), measured])
        return hashlib.sha256(about.encode()).hexdigest()

    def picture(self, number: int) -> Path:
        """Returns where a photo's picture is, or is to be: it comes before the record."""
        return self.folder / f"{number}.jpg"

    def get(self, number: int, key: str) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]] | None:
        """Returns a photo's findings and totals as `inspect_photo` does; None where the record is not of this key."""
        try:
            record = read_object(self.folder / f"{number}.json")
            if record["key"] == key and self.picture(number).is_file():
                return pd.DataFrame(record["findings"], columns=FINDINGS), record["totals"]
        except (FileNotFoundError, KeyError, ValueError):  # none yet, or somebody's edit
            pass
        return None

    def add(self, number: int, key: str, findings: pd.DataFrame, totals: dict[str, dict[str, Any]]) -> None:
        """Keeps what was said of a photo, once its picture is there."""
        record = {"key": key, "findings": findings.to_dict("records"), "totals": totals}
        with whole_file(self.folder / f"{number}.json") as partial:
            partial.write_text(json.dumps(record, default=np.generic.item), encoding="utf-8")
