"""The exports, wherever they are: a folder, a zip, Google Drive or Roboflow."""

import importlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

from tqdm import tqdm

from drywall_seg.config import project_root, resolve_path
from drywall_seg.data.coco import DataError
from drywall_seg.data.http import DownloadError, Server, address_of, patiently
from drywall_seg.data.sources import RAW, find_fetched, install, refuse_other, unpack_local
from drywall_seg.data.transfer import download
from drywall_seg.data.unpack import kind_of, top_folder
from drywall_seg.runs import progress

ROBOFLOW = "https://api.roboflow.com"
DRIVE = "https://drive.google.com"
KEY = "ROBOFLOW_API_KEY"
"""In the environment, or among Colab's secrets; never a parameter, since papermill keeps those in the notebook."""
POLL_SECONDS = 5
POLL_MINUTES = 10
"""For which Roboflow may be making an export that nobody has asked for yet."""

_VERSION = r"(?:https?://(?:universe|app)\.roboflow\.com/)?([\w-]+)/([\w-]+)/(?:dataset/)?(\d+)/?"
_ROBOFLOW_ADVICE = {
    401: f"check {KEY}: app.roboflow.com, Settings, API keys",
    403: f"{KEY} does not open it: fork the project to your own workspace, or use a key of its workspace",
    404: "there is no such workspace, project or version; copy workspace/project/version from the export's address",
}
_SHARE = "in Drive: Share, General access, 'Anyone with the link'"
_DRIVE_ADVICE = {401: _SHARE, 403: f"{_SHARE}; if it is, try again tomorrow", 404: "check the link, and that " + _SHARE}


def fetch_data(data_root: str, drive: str | None = None, roboflow: str | None = None) -> Path:
    """Returns the folder with the exports, after fetching and unpacking what is not there yet.

    A second call with the same does nothing. Relative paths are against the project's root.

    Args:
        data_root: A folder, which is returned as it is, or a zip, which is unpacked beside itself, or to `data/raw`
            where that cannot be written. With `drive` or `roboflow` the folder that each export gets a folder in,
            `data/raw` in the place of the drawn sample's.
        drive: Id or link of a zip on Google Drive; None or "" for none.
        roboflow: `workspace/project/version`, several apart by spaces or commas; None or "" for none.

    Raises:
        DataError: If the zip, or what is in the way of it, cannot be used.
        DownloadError: If it cannot be fetched; the message says what to do.
    """
    if drive and roboflow:
        raise DataError("give drive or roboflow, not both; data_root takes what each of them brings")
    if not drive and not roboflow:
        return unpack_local(data_root)
    if (project_root() / "data" / "sample") in (resolve_path(data_root), *resolve_path(data_root).parents):
        data_root = RAW  # the sample is drawn, and stays as it is
    folder = resolve_path(data_root)
    if drive:
        fetch_drive(drive, folder)
    for version in re.split(r"[\s,]+", (roboflow or "").strip(", \n\t")) if roboflow else ():
        fetch_roboflow(version, folder)
    return Path(data_root)


def fetch_roboflow(version: str, data_root: Path) -> Path:
    """Downloads a version of a Roboflow project as a COCO export, into `<project>.coco`.

    Raises:
        DownloadError: If the version is not one, there is no key, or it cannot be had.
        DataError: If the folder is there and of another source, or the zip cannot be used.
    """
    if not (match := re.fullmatch(_VERSION, version)):
        version = version.partition("?")[0]  # a link that was pasted may hold a key
        raise DownloadError(f"roboflow {version!r:.200} is not workspace/project/version, such as my-team/cracks/3")
    path, folder = "/".join(match.groups()), data_root / f"{match[2]}.coco"
    source = f"roboflow:{path}"
    if there := find_fetched(data_root, source):
        return there
    refuse_other(folder, source)
    server = Server(f"Roboflow {path}", _ROBOFLOW_ADVICE)
    link = _roboflow_link(server, path, roboflow_key())
    return _take(server, link, data_root / f".{path.replace('/', '-')}.zip", source, lambda: folder)


def roboflow_key() -> str:
    """Returns the key to Roboflow: of the environment, else of Colab's secrets.

    Raises:
        DownloadError: If there is none.
    """
    key = os.environ.get(KEY, "").strip()
    try:
        key = key or importlib.import_module("google.colab.userdata").get(KEY) or ""
    except ImportError:  # not Colab
        pass
    except Exception as error:  # its own kinds: no such secret, no access, and no page to ask from papermill's child
        tqdm.write(f"Colab's secret {KEY} cannot be read here ({type(error).__name__})")
    if not key.strip():
        raise DownloadError(f"no key: set {KEY} in the environment, in Colab by os.environ from its secrets")
    return key.strip()


def _roboflow_link(server: Server, path: str, key: str) -> str:
    """Asks for an export's link until it has been made."""
    with progress(None, f"{server.what}: export is made", "%", 100) as bar:
        for _ in range(max(1, int(POLL_MINUTES * 60 / POLL_SECONDS))):
            answer = patiently(lambda: _ask_roboflow(server, path, key))
            export = answer.get("export")
            link = export.get("link") if isinstance(export, dict) else None
            if isinstance(link, str) and address_of(link)[0]:
                return link
            made = answer.get("progress")
            if link is not None or not isinstance(made, (int, float)):
                raise DownloadError(f"{server.what}: the answer holds no link to an export; try it later")
            bar.update(100 * min(max(made, 0), 1) - bar.n)
            time.sleep(POLL_SECONDS)
    raise DownloadError(f"{server.what}: the export is not made after {POLL_MINUTES:g} minutes; run this again later")


def _ask_roboflow(server: Server, path: str, key: str) -> dict[str, Any]:
    page = server.read_page(server.ask(f"{ROBOFLOW}/{path}/coco", params={"api_key": key}))
    try:
        answer = json.loads(page)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise DownloadError(f"{server.what}: the answer is {kind_of(page)} and not what Roboflow says; try it later")
    return answer


def fetch_drive(drive: str, data_root: Path) -> Path:
    """Downloads a zip from Google Drive, into a folder named as the one in it, or as the zip.

    Raises:
        DownloadError: If it is no file's id or link, or the file cannot be had.
        DataError: If the folder is there and of another source, or the zip cannot be used.
    """
    file_id, more = _drive_id(drive.strip())
    source = f"drive:{file_id}"
    if there := find_fetched(data_root, source):
        return there
    server = Server(f"Google Drive {file_id}", _DRIVE_ADVICE)
    first = f"{DRIVE}/uc?export=download&id={file_id}{more}"
    address, name = patiently(lambda: _drive_address(server, first))
    stem = re.sub(r"[^\w.-]", "_", Path(name).stem).strip(".")[:100] or file_id
    archive = data_root / f".{file_id}.zip"
    return _take(server, address, archive, source, lambda: data_root / (top_folder(archive) or stem))


def _drive_id(drive: str) -> tuple[str, str]:
    """Returns a file's id, and what else its address needs."""
    if re.fullmatch(r"[\w-]{10,200}", drive):
        return drive, ""
    (address, host), query = address_of(drive), drive.partition("?")[2]
    if "/folders/" in address:
        raise DownloadError(f"drive {drive!r:.200} is a folder; put the exports into one zip and give the zip's link")
    found = re.search(r"/d/([\w-]{10,200})", address) or re.search(r"\bid=([\w-]{10,200})", query)
    if not host.endswith(".google.com") or not found:
        raise DownloadError(f"drive {drive!r:.200} is neither the id nor the link of a file on Google Drive")
    key = re.search(r"\bresourcekey=[\w-]+", query)  # which links to older files have
    return found[1], f"&{key[0]}" if key else ""


def _drive_address(server: Server, url: str) -> tuple[str, str]:
    """Returns the address that a file itself comes from, and its name; "" where Drive does not say."""
    for _ in range(3):  # before a file that is too large for its virus scan, Drive asks on a page
        response = server.ask(url)
        disposition = response.headers.get("Content-Disposition", "")
        if disposition or "html" not in response.headers.get("Content-Type", ""):
            response.close()
            name = re.search(r"filename\*?=(?:UTF-8'')?\"?([^\";]+)", disposition, re.IGNORECASE)
            return url, unquote(name[1]) if name else ""
        page = server.read_page(response).decode(errors="replace")
        url = urljoin(response.url, confirmed_address(page, server.what))
    raise DownloadError(f"{server.what}: Drive leads from page to page and not to the file; {_SHARE}")


def confirmed_address(page: str, what: str) -> str:
    """Returns where Drive's page before a large file leads; gdown knows how that page looks, in 5 and 6 alike.

    Raises:
        DownloadError: If it is another page.
    """
    import gdown.exceptions

    try:  # not gdown.download: its version 5 knows no time limit, no rest of a file and no check of the length
        return importlib.import_module("gdown.download").get_url_from_gdrive_confirmation(page)
    except (gdown.exceptions.FileURLRetrievalError, AssertionError, KeyError):
        pass  # it gives one reason for all
    if re.search("quota|too many users", page, re.IGNORECASE):
        raise DownloadError(f"{what}: too many downloads of it today; try it tomorrow, or copy it to a Drive of yours")
    if re.search("accounts.google.com|ServiceLogin|request access|need access", page, re.IGNORECASE):
        raise DownloadError(f"{what}: it is private; {_SHARE}")
    raise DownloadError(f"{what}: what comes is {kind_of(page.encode())} and not a zip; {_SHARE}")


def _take(server: Server, url: str, archive: Path, source: str, folder_of: Callable[[], Path]) -> Path:
    """Downloads a zip, unpacks it and removes it."""
    if not archive.exists():  # else stopped before it was unpacked
        download(server, url, archive)
    try:
        return install(archive, folder_of(), source, address_of(url)[0])
    finally:
        archive.unlink(missing_ok=True)
