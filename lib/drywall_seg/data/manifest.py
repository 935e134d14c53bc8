"""The manifest: exports and overlays merged into one row per (image, label), masks beside it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from drywall_seg.config import project_root, resolve_path
from drywall_seg.data.coco import CocoImage, DataError, Export, find_exports, rasterise, read_coco
from drywall_seg.data.overlays import Rows, apply_overlay, mask_path, store_mask
from drywall_seg.data.sample import write_sample
from drywall_seg.data.splits import assign_splits, compare_splits
from drywall_seg.data.unpack import clear_left
from drywall_seg.images import ImageError, read_image
from drywall_seg.runs import hash_file, is_path, progress, read_object, write_csv, write_json
from drywall_seg.settings import RunConfig

FORMAT = 2
COLUMNS = "image_id source photo_id label image_path mask_path width height annotation_kind mask_area split".split()


@dataclass(frozen=True)
class Manifest:
    """The rows, and where their paths start."""

    table: pd.DataFrame
    data_root: Path
    folder: Path
    info: dict[str, Any]
    """The sidecar `manifest.json`: data root, settings, fingerprint, summary."""
    score_known: bool = False
    """Whether photographs that a model was trained on are scored too."""

    def rows(self, split: str) -> pd.DataFrame:
        """Returns the rows of train, val or test."""
        return self.table[self.table.split == split].reset_index(drop=True)

    def image_file(self, row: Any) -> Path:
        """Returns the path of a row's photo."""
        return self.data_root / row.image_path

    def mask_file(self, row: Any) -> Path:
        """Returns the path of a row's mask."""
        return self.folder / row.mask_path


def prepare(config: RunConfig) -> Manifest:
    """Makes the manifest of a configuration's data, or refreshes it where data or settings changed.

    `data/sample` is drawn where it is missing. On unchanged data nothing is written.

    Raises:
        DataError: If the data cannot be used.
    """
    data_root = resolve_data(config.data_root)
    folder = project_root() / "data" / "processed" / data_root.name
    overlays = sorted((project_root() / "data" / "annotations").glob("*.coco.json"))
    manifest = build_manifest(data_root, folder, config.split, config.seed, overlays)
    return narrow(manifest, config.only_label, config.drop_shared, config.score_known)


def narrow(manifest: Manifest, only_label: str | None, drop_shared: bool, score_known: bool) -> Manifest:
    """Returns a manifest without the rows that a configuration does without; what is stored stays whole."""
    table = manifest.table
    if only_label:
        table = table[table.label == only_label]
    if drop_shared:
        held_out = set(table.photo_id[table.split != "train"])
        table = table[(table.split != "train") | ~table.photo_id.isin(held_out)]
    return replace(manifest, table=table.reset_index(drop=True), score_known=score_known)


def resolve_data(path: str) -> Path:
    """Makes a path of data absolute, and draws the sample where it is asked for and not there yet."""
    sample, absolute = project_root() / "data" / "sample", resolve_path(path)
    if sample in (absolute, *absolute.parents):
        write_sample(sample)
    return absolute


def build_manifest(
    data_root: Path,
    folder: Path,
    split: str = "photo",
    seed: int = 42,
    overlays: list[Path] | tuple[Path, ...] = (),
    labels: dict[str, str] | None = None,
) -> Manifest:
    """Merges all exports of a folder, and the overlays that fit, into a manifest.

    Nothing is read twice: where the files' names, sizes and times and the settings are those recorded, the stored
    manifest is returned. It can be stopped at any point and run again; the sidecar, written last, makes it valid.

    Args:
        data_root: Folder with the exports; overlays directly in it (`*.coco.json`) apply too. Only read.
        folder: Where the manifest and the masks go.
        split: photo, image or publisher.
        seed: Of the split.
        overlays: COCO files without images, joined by the images' sha256; later ones win.
        labels: Label by export folder name, where `coco.EXPORT_LABELS` does not tell it.

    Raises:
        DataError: If an export or overlay cannot be used.
    """
    data_root = data_root.absolute()
    exports = find_exports(data_root, labels)
    if unwritable := [export.folder for export in exports if not is_path(str(export.folder))]:
        raise DataError(f"{unwritable[0]}: its name is not UTF-8, so no table can hold it; rename it")
    overlays = [*sorted(data_root.glob("*.coco.json")), *overlays]
    state = _state([e.folder for e in exports], overlays)
    settings = {"format": FORMAT, "split": split, "seed": seed, "labels": {e.folder.name: e.label for e in exports}}
    table, info = _read_stored(folder, data_root, state)
    if info.get("settings") == settings:
        return Manifest(table, data_root, folder, info)
    sidecar = folder / "manifest.json"
    sidecar.unlink(missing_ok=True)  # from here until the end the folder is no manifest
    if {**info.get("settings", {}), "split": split, "seed": seed} != settings:
        table, info = _collect(data_root, folder, exports, overlays)
        info |= {"data_root": str(data_root), "state": state}
    table["split"] = assign_splits(table, split, seed)
    table = table[COLUMNS]
    write_csv(folder / "manifest.csv", table)
    _remove_stale_masks(folder, set(table.mask_path))
    info |= {"settings": settings, "table": hash_file(folder / "manifest.csv")}
    info |= {"leaks": compare_splits(table, seed).to_dict("records")}
    write_json(sidecar, info)
    return Manifest(table, data_root, folder, info)


def photo_id(file_name: str) -> str:
    """Returns the source photograph: the name before Roboflow's `.rf.`, else the name without its suffix.

    >>> photo_id("2416_jpg.rf.bf2b80646c006685.jpg")
    '2416_jpg'
    """
    return file_name.split(".rf.")[0] if ".rf." in file_name else Path(file_name).stem


def _state(folders: list[Path], overlays: list[Path]) -> str:
    files = sorted(f for folder in folders for f in folder.glob("*/*") if f.is_file()) + list(overlays)
    stats = [(file, file.stat()) for file in files]
    lines = [f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _read_stored(folder: Path, data_root: Path, state: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns the stored rows and sidecar, both empty where they are of other data or a part of them is missing."""
    nothing = pd.DataFrame(), {}
    try:
        info = read_object(folder / "manifest.json")
    except (FileNotFoundError, ValueError):  # not made yet, or somebody's edit
        return nothing
    same_data = (info.get("data_root"), info.get("state")) == (str(data_root), state)
    file = folder / "manifest.csv"
    if not same_data or not file.is_file() or info.get("table") != hash_file(file):  # it may be cut, as on a Drive
        return nothing
    text = dict.fromkeys(("image_id", "source", "photo_id"), str)
    table = pd.read_csv(file, dtype=text, keep_default_na=False)
    return (table, info) if all((folder / mask).is_file() for mask in table.mask_path) else nothing


def _collect(
    data_root: Path, folder: Path, exports: list[Export], overlays: list[Path]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reads everything once: rows, masks on disk, fingerprint and summary."""
    annotation_files = [(export, file) for export in exports for file in export.annotation_files]
    entries = [(export, file, image) for export, file in annotation_files for image in read_coco(file)[0]]
    if not entries:
        raise DataError(f"{data_root}: no image in {', '.join(str(file) for _, file in annotation_files)}")
    _check_files(entries)
    rows: Rows = {}
    hashes: dict[str, list[str]] = {}  # image ids by the image file's sha256; byte-equal copies share one
    n_degenerate = 0
    for export, file, image in progress(entries, "reading images", "image"):
        path = file.parent / image.file_name
        row = _image_row(data_root, export, path, image)
        drawn = rasterise(image.annotations, image.size_hw, f"{file}: image {image.entry['id']} ({path.name})")
        n_degenerate += drawn.n_degenerate
        store_mask(folder, row, drawn)
        rows[row["image_id"], row["label"]] = row
        hashes.setdefault(hash_file(path), []).append(row["image_id"])
    content = [f"{sha256} {ids}" for sha256, ids in sorted(hashes.items())]
    content += [hash_file(file) for _, file in annotation_files]
    overlay_by_sha256 = {hash_file(file): file for file in overlays}  # the same one may come with the data too
    content += overlay_by_sha256
    applied: dict[str, dict[str, int]] = {}
    for file in overlay_by_sha256.values():
        name = f"{file.parent.name}/{file.name}" if file.name in applied else file.name
        applied[name] = apply_overlay(file, folder, hashes, rows)
    summary = {"n_images": len(entries), "n_degenerate_polygons": n_degenerate, "overlays": applied}
    fingerprint = hashlib.sha256("\n".join(content).encode()).hexdigest()
    return pd.DataFrame(list(rows.values())), {"fingerprint": fingerprint, "summary": summary}


def _check_files(entries: list[tuple[Export, Path, CocoImage]]) -> None:
    missing, masks = [], {}
    for export, file, image in entries:
        path = file.parent / image.file_name
        if not path.is_file():
            missing.append(f"{path} (image {image.entry['id']} of {file})")
        # One name in two spellings is one file on many systems, so two exports could overwrite each other's masks.
        other = masks.setdefault(mask_path(export.label, _image_id(export, path)).casefold(), path)
        if other != path:
            raise DataError(f"{other} and {path} would write the same mask file; rename one export or image")
    if missing:
        raise DataError(f"{len(missing)} images are missing:\n" + "\n".join(missing))


def _image_id(export: Export, path: Path) -> str:
    return f"{export.folder.name}/{path.parent.name}/{path.name}"


def _image_row(data_root: Path, export: Export, path: Path, image: CocoImage) -> dict[str, Any]:
    try:
        size_hw = read_image(path).shape[:2]  # decodes it whole: a truncated JPEG is found here
    except ImageError as error:
        raise DataError(f"{error} (image {image.entry['id']})") from error
    if size_hw != image.size_hw:
        raise DataError(f"{path}: image {image.entry['id']} is {size_hw} high and wide, its JSON says {image.size_hw}")
    return {
        "image_id": _image_id(export, path),
        "source": export.folder.name,
        "photo_id": photo_id(path.name),
        "label": export.label,
        "image_path": path.relative_to(data_root).as_posix(),
        "width": size_hw[1],
        "height": size_hw[0],
    }


def _remove_stale_masks(folder: Path, kept: set[str]) -> None:
    for below in (folder, *folder.glob("masks/**/")):
        clear_left(below)
    for mask in (folder / "masks").rglob("[!.]*.png"):  # a hidden one is another process's, which is writing it now
        if mask.relative_to(folder).as_posix() not in kept:
            mask.unlink()
