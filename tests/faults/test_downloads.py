"""Downloads over a network and from servers that fail in every way: a clear error or a recovery, and nothing broken."""

import io
import json
import logging
import random
import shutil
import socket
import subprocess
import sys
import traceback
import zipfile
from collections import namedtuple

import pytest

from drywall_seg.data import download, http, transfer
from drywall_seg.data.coco import DataError, find_exports
from drywall_seg.data.download import fetch_data
from drywall_seg.data.http import DownloadError
from tests.data.exports import contents
from tests.faults.server import DATE, as_json, file, garbage, in_chunks, page, redirect, serve, silent, status
from tests.faults.table import REFUSED, SAME

KEY = "rf_planted0key0Value77"
DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
API, ZIP, DRIVE_PAGE = "/team/cracks-3ii36/2/coco", "/made/cracks.zip", "/uc"


def zip_of(seed=0, top="", size=200_000):
    """An export as a zip, of photos that do not shrink."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(f"{top}train/_annotations.coco.json", '{"images": [], "annotations": [], "categories": []}')
        archive.writestr(f"{top}train/a.jpg", random.Random(seed).randbytes(size))
    return written.getvalue()


DATA, OTHER = zip_of(), zip_of(1)


@pytest.fixture
def net(tmp_path, monkeypatch, capfd):
    """A server in the place of Roboflow and Drive, quick tries, earlier data in the folder, and a planted key."""
    logged = io.StringIO()
    handler, logger = logging.StreamHandler(logged), logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    monkeypatch.setenv("ROBOFLOW_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http, "WAITS", (0, 0, 0))
    monkeypatch.setattr(http, "READ_SECONDS", 0.15)
    monkeypatch.setattr(download, "POLL_SECONDS", 0.01)
    earlier = tmp_path / "raw" / "earlier.coco" / "train" / "kept.txt"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("kept")
    with serve() as server:
        monkeypatch.setattr(download, "ROBOFLOW", server.address)
        monkeypatch.setattr(download, "DRIVE", server.address)
        server.answers[API] = [as_json({"export": {"link": f"{server.address}{ZIP}?key={KEY}&sign=1"}})]
        server.raw = tmp_path / "raw"
        yield server
    logger.removeHandler(handler)
    logger.setLevel(level)
    assert earlier.read_text() == "kept"
    assert "127.0.0.1" in logged.getvalue() or not server.asked  # debugging is on
    assert KEY not in "".join(capfd.readouterr()) + logged.getvalue()
    for path in tmp_path.rglob("*"):
        assert KEY not in path.name and not path.name.startswith((".partial-", ".old-"))
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def fetch(net, **source):
    return fetch_data(str(net.raw), **(source or {"roboflow": "team/cracks-3ii36/2"}))


def refused(net, message, error=DownloadError, **source):
    """Fetches in vain; the error, and whatever is chained to it, holds no key. Returns what was left behind."""
    before = {"earlier.coco", *(p.name for p in net.raw.iterdir() if p.name[0] != ".")}
    with pytest.raises(error, match=message) as failure:
        fetch(net, **source)
    seen, chain = set(), failure.value
    while chain is not None and id(chain) not in seen:  # also what `from None` only hides
        seen.add(id(chain))
        assert KEY not in str(chain) and KEY not in repr(chain)
        chain = chain.__cause__ or chain.__context__
    assert KEY not in "".join(traceback.format_exception(failure.value))
    assert {p.name for p in net.raw.iterdir() if p.name[0] != "."} == before
    return sorted(p.name for p in net.raw.iterdir() if p.name[0] == ".")


def is_there(net, data=DATA):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        wanted = {name: archive.read(name) for name in archive.namelist()}
    assert contents(net.raw / "cracks-3ii36.coco") == wanted
    assert sorted(p.name for p in net.raw.iterdir()) == [
        "cracks-3ii36.coco",
        "cracks-3ii36.coco.source.json",
        "earlier.coco",
    ]
    return True


HALF = 128 * 1024  # bytes; a whole number of the pieces that are written
CUT = file(DATA, cut=HALF)
Fault = namedtuple("Fault", "name answers")

RECOVERS = [
    Fault("nothing wrong", [file(DATA)]),
    Fault("cut, the rest comes", [CUT, file(DATA)]),
    Fault("cut three times at other places", [CUT, file(DATA, cut=150_000), file(DATA, cut=199_000), file(DATA)]),
    Fault("cut, the rest by date alone", [file(DATA, None, DATE, cut=HALF), file(DATA, None, DATE)]),
    Fault("cut, ranges are ignored", [CUT, file(DATA, ranges=False)]),
    Fault("cut, a weak ETag", [file(DATA, 'W/"a"', cut=HALF), file(DATA, 'W/"a"')]),
    Fault("cut, no ETag and no date", [file(DATA, None, cut=HALF), file(DATA, None)]),
    Fault("cut, another part comes", [CUT, file(DATA, Content_Range="bytes 5-9/10"), file(DATA)]),
    Fault("cut, Content-Range is no range", [CUT, file(DATA, Content_Range="half of it"), file(DATA)]),
    Fault("cut, no Content-Range", [CUT, file(DATA, Content_Range=None), file(DATA)]),
    Fault("cut, another total", [CUT, file(DATA, Content_Range=f"bytes {HALF}-{10**6 - 1}/{10**6}"), file(DATA)]),
    Fault("cut, the range cannot be had", [CUT, status(416), file(DATA)]),
    Fault("cut twice, no length", [CUT, file(DATA, cut=150_000, Content_Length=None), file(DATA)]),
    Fault("a part though all was asked for", [status(206, DATA[:9], Content_Range="bytes 0-8/9"), file(DATA)]),
    Fault("stalls midway", [file(DATA, stall=HALF), file(DATA)]),
    Fault("silent at first", [silent(), file(DATA)]),
    Fault("a slow start", [silent(0.05, file(DATA))]),
    Fault("500, then 503", [status(500), status(503), file(DATA)]),
    Fault("429 with Retry-After", [status(429, Retry_After="0"), file(DATA)]),
    Fault("429 with a date", [status(429, Retry_After=DATE), file(DATA)]),
    Fault("empty, then whole", [status(200), file(DATA)]),
    Fault("longer announced than sent, once", [file(DATA, Content_Length=len(DATA) + 9), file(DATA)]),
    Fault("chunks without a length", [in_chunks(DATA)]),
    Fault("chunks, cut", [in_chunks(DATA[:HALF], end=False), file(DATA)]),
    Fault("no length at all", [file(DATA, Content_Length=None)]),
    Fault("no HTTP, then whole", [garbage, file(DATA)]),
]


@pytest.mark.fault("downloads", SAME)
@pytest.mark.parametrize("fault", RECOVERS, ids=lambda fault: fault.name)
def test_it_recovers(net, fault):
    net.answers[ZIP] = list(fault.answers)
    assert fetch(net) == net.raw
    assert is_there(net)


def test_only_the_rest_is_asked_for(net):
    net.answers[ZIP] = [CUT, file(DATA)]
    fetch(net)
    assert net.ranges(ZIP) == [None, f"bytes={HALF}-"]


@pytest.mark.fault("downloads", SAME)
@pytest.mark.parametrize("ranges", [True, "always"], ids=["If-Range is heeded", "If-Range is ignored"])
def test_a_file_that_changes_between_two_tries_is_fetched_anew(net, ranges):
    net.answers[ZIP] = [CUT, file(OTHER, '"two"', ranges=ranges)]
    fetch(net)
    assert is_there(net, OTHER)


GONE_ON_WITH = [".team-cracks-3ii36-2.zip.partial", ".team-cracks-3ii36-2.zip.partial.json"]
FAILS = [
    ([CUT, *[file(DATA, cut=HALF)] * 9], "connection to 127.0.0.1 was cut|of .* bytes came", GONE_ON_WITH),
    ([file(DATA, stall=HALF)], "does not answer within 0.15 s", GONE_ON_WITH),
    ([file(DATA, Content_Length=len(DATA) + 9)], "was cut|bytes came|another part of it came", None),
    ([silent()], "does not answer within", []),
    ([page("<!DOCTYPE html><title>Sign in</title>")], "a web page \\(HTML\\) and not a zip", []),
    ([as_json({"error": f"no {KEY}"})], "is JSON and not a zip", []),
    ([status(200, b"\x1f\x8b" + b"0" * 99)], "is a gzip file and not a zip", []),
    ([file(DATA[:HALF])], "cut off or damaged", []),
    ([file(DATA, Content_Length=HALF)], "cut off or damaged", []),
    ([file(DATA[:HALF] + b"x" + DATA[HALF + 1 :])], "'train/a.jpg' is damaged .*get the zip again", []),
    ([in_chunks(DATA[:HALF])], "cut off or damaged", []),
    ([status(200)], "the answer is empty", []),
    ([status(401, KEY.encode())], "401.*check ROBOFLOW_API_KEY", []),
    ([status(403)], "not allowed \\(answer 403\\).*fork the project", []),
    ([status(404)], "not there \\(answer 404\\).*no such workspace, project or version", []),
    ([status(410)], "is gone \\(answer 410\\)", []),
    ([status(418)], "answer 418\\); check what was given", []),
    ([status(429)], "too many requests were made \\(answer 429\\); try it later", []),
    ([status(500)], "its server fails \\(answer 500\\); try it later", []),
    ([status(503)], "answer 503", []),
    ([redirect(f"{ZIP}?key={KEY}")], "from one address to the next", []),
    ([redirect("ftp://127.0.0.1/x")], "an address or a header that cannot be read", []),
    ([redirect(f"http://[{KEY}")], "cannot be read|was cut", []),
    ([redirect("http://127.0.0.1:1/x")], "cannot be reached", []),
    ([file(DATA, Content_Length=10**12)], "1000.0 GB, more than", []),
    ([file(DATA, Content_Length="many")], None, []),
    ([file(DATA, Content_Encoding="gzip")], "was cut|cannot be read", None),
    ([garbage], "was cut", []),
]


@pytest.mark.fault("downloads", REFUSED)
@pytest.mark.parametrize(
    ("answers", "message", "left"), FAILS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_it_fails_in_plain_words(net, answers, message, left):
    net.answers[ZIP] = list(answers)
    if message is None:  # a length that is none is as good as no length
        assert fetch(net) and is_there(net)
        return
    behind = refused(net, message, DataError)
    assert left is None or behind == left
    net.answers[ZIP] = [file(DATA)]  # whatever was left, the next time all is well
    fetch(net)
    assert is_there(net)


def test_what_cannot_get_better_is_not_tried_again(net):
    for code, times in ((401, 1), (404, 1), (500, 4), (429, 4)):
        net.asked.clear()
        net.answers[ZIP] = [status(code)]
        refused(net, str(code))
        assert len(net.ranges(ZIP)) == times


def test_waits_grow_and_heed_what_the_server_asks_for(net, monkeypatch):
    waits = []
    monkeypatch.setattr(http, "WAITS", (1, 4, 15))
    monkeypatch.setattr(http.time, "sleep", waits.append)
    net.answers[ZIP] = [status(503), status(429, Retry_After="7"), status(429, Retry_After="999999"), file(DATA)]
    fetch(net)
    assert waits == [1, 7, 60]


@pytest.mark.fault("downloads", SAME)
def test_a_long_download_may_be_cut_often_as_long_as_it_gets_on(net, monkeypatch):
    monkeypatch.setattr(http, "ADVANCE", 10_000)
    net.answers[ZIP] = [*(file(DATA, cut=n) for n in range(20_000, 200_000, 20_000)), file(DATA)]
    fetch(net)
    assert is_there(net)


@pytest.mark.fault("downloads", SAME)
def test_after_a_killed_process_the_next_goes_on(net):
    net.answers[ZIP] = [CUT]
    assert refused(net, "was cut|bytes came") == GONE_ON_WITH
    net.asked.clear()
    net.answers[ZIP] = [file(DATA)]
    fetch(net)
    assert net.ranges(ZIP) == [f"bytes={HALF}-"]
    assert is_there(net)


@pytest.mark.fault("downloads", SAME)
def test_a_note_that_somebody_edited_is_not_gone_on_with(net):
    net.answers[ZIP] = [CUT]
    refused(net, "was cut|bytes came")
    (net.raw / GONE_ON_WITH[1]).write_text("{")
    net.answers[ZIP] = [file(DATA)]
    fetch(net)
    assert net.ranges(ZIP)[-1] is None and is_there(net)


@pytest.mark.fault("two at once", REFUSED)
def test_two_processes_do_not_write_one_file(net):
    partial = net.raw / GONE_ON_WITH[0]
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, partial], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        refused(net, "another process is downloading it")
        other.communicate(b"\n")
    net.answers[ZIP] = [file(DATA)]
    fetch(net)
    assert is_there(net)


@pytest.mark.fault("full disk", REFUSED)
def test_a_full_disk_is_said_before_the_download(net, monkeypatch):
    usage = namedtuple("usage", "total used free")
    net.answers[ZIP] = [file(DATA)]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 50_000))
    assert refused(net, "needs 0.2 MB in .*raw, 0.1 MB are free") == []


@pytest.mark.fault("full disk", REFUSED)
def test_a_disk_that_fills_up_meanwhile(net, monkeypatch):
    real = transfer._alone

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if self.file.seek(0, 2) > 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

    class Alone:
        def __init__(self, *arguments):
            self.inner = real(*arguments)

        def __enter__(self):
            return Full(self.inner.__enter__())

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    net.answers[ZIP] = [file(DATA)]
    monkeypatch.setattr(transfer, "_alone", Alone)
    assert refused(net, "the disk is full after 0.1 MB of 0.2 MB") == []


@pytest.mark.fault("downloads", REFUSED)
def test_an_endless_answer_ends(net, monkeypatch):
    monkeypatch.setattr(transfer, "MOST_BYTES", 120_000)
    net.answers[ZIP] = [in_chunks(DATA)]
    assert refused(net, "no end after 0.1 MB") == []


@pytest.mark.fault("downloads", REFUSED)
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            socket.gaierror(-3, "Temporary failure in name resolution"),
            "the name 127.0.0.1 is not found; is there a net",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached; is there a network"),
        (OSError(101, "Network is unreachable"), "cannot be reached; is there a network"),
        (TimeoutError("timed out"), "does not answer within 10 s"),
    ],
    ids=["DNS", "refused", "no network", "connect timeout"],
)
def test_without_a_network(net, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    target = "getaddrinfo" if isinstance(error, socket.gaierror) else "socket"
    monkeypatch.setattr(socket, target, fail)
    assert refused(net, message) == []


@pytest.mark.fault("downloads", REFUSED)
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [as_json({"error": f"bad key {KEY}"}, 401)],
            "key is missing or wrong \\(answer 401\\); check ROBOFLOW_API_KEY",
        ),
        ([as_json({}, 403)], "403.*fork the project"),
        ([as_json({}, 404)], "404.*no such workspace, project or version"),
        ([as_json({}, 429)], "429"),
        ([as_json({}, 502)], "502"),
        ([page(f"<html>{KEY}")], "is a web page \\(HTML\\) and not what Roboflow says"),
        ([status(200)], "the answer is empty and not"),
        ([status(200, b"[" * 100_000)], "JSON and not what"),
        ([as_json([KEY])], "is JSON and not"),
        ([as_json({"version": KEY})], "holds no link"),
        ([as_json({"export": {"link": f"file:///etc/passwd?{KEY}"}})], "holds no link"),
        ([as_json({"export": {"link": 5}})], "holds no link"),
        ([as_json({"export": {"link": f"http://[{KEY}"}})], "holds no link"),
        ([as_json({"progress": 0.5})], "not made after 0.001 minutes; run this again later"),
        ([silent()], "does not answer"),
        ([redirect(API + f"?api_key={KEY}")], "from one address to the next"),
        ([file(b"{" * 90_000, cut=50_000)], "was cut"),
        ([file(b"{" * 90_000, stall=50_000)], "does not answer within"),
    ],
)
def test_roboflow_says_no(net, monkeypatch, answers, message):
    monkeypatch.setattr(download, "POLL_MINUTES", 0.001)
    net.answers[API] = answers
    assert refused(net, message) == []


def test_an_export_that_is_still_being_made_is_waited_for(net):
    net.answers[ZIP] = [file(DATA)]
    net.answers[API] = [as_json({"progress": share}) for share in (0, 0.4, 1)] + net.answers[API]
    fetch(net)
    assert is_there(net)
    assert [query for path, query, _ in net.asked if path == API] == [f"api_key={KEY}"] * 4


def test_a_second_call_asks_nothing(net):
    net.answers[ZIP] = [file(DATA)]
    fetch(net)
    record = json.loads((net.raw / "cracks-3ii36.coco.source.json").read_text())
    assert record["address"] == net.address.rpartition(":")[0] + ZIP
    assert (record["source"], record["bytes"]) == ("roboflow:team/cracks-3ii36/2", len(DATA))
    net.asked.clear()
    fetch(net)
    assert not net.asked
    (net.raw / "cracks-3ii36.coco" / "train" / "a.jpg").unlink()
    fetch(net)
    assert net.asked and is_there(net)


@pytest.mark.fault("downloads", REFUSED)
def test_a_folder_of_another_source_is_left_alone(net):
    for path in (net.raw / "cracks-3ii36.coco" / "mine.txt", net.raw / "drywall.coco" / "mine.txt"):
        path.parent.mkdir()
        path.write_text("mine")
    refused(net, "is there already and not from roboflow:team/cracks-3ii36/2; give another data_root", DataError)
    assert not net.asked
    assert (net.raw / "cracks-3ii36.coco" / "mine.txt").read_text() == "mine"
    net.answers[DRIVE_PAGE] = [file(zip_of(top="drywall.coco/"), Content_Disposition='attachment; filename="x.zip"')]
    refused(net, "is there already and not from drive:", DataError, drive=DRIVE_ID)
    assert (net.raw / "drywall.coco" / "mine.txt").read_text() == "mine"


CONFIRM = """<html><body><form id="download-form" action="{0}/download" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="x">
<input type="hidden" name="confirm" value="t"></form></body></html>"""
# On one line, as Drive writes it: gdown reads it line by line.
CONFIRM = CONFIRM.replace("\n", "")
NAMED = {"Content_Disposition": "attachment; filename=\"my.zip\"; filename*=UTF-8''my.zip"}


def test_drive_gives_the_file_at_once_or_after_its_question(net):
    net.answers[DRIVE_PAGE] = [file(zip_of(top="cracks.coco/"), **NAMED)]
    assert fetch(net, drive=f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing") == net.raw
    assert [e.folder.name for e in find_exports(net.raw / "cracks.coco")] == ["cracks.coco"]
    assert [query for _, query, _ in net.asked] == [f"export=download&id={DRIVE_ID}"] * 2

    net.answers[DRIVE_PAGE] = [page(CONFIRM.format(net.address))]
    net.answers["/download"] = [file(DATA, **NAMED), file(DATA, cut=HALF, **NAMED), file(DATA, **NAMED)]
    fetch(net, drive="B" * 30)
    assert (net.raw / "my" / "train" / "a.jpg").stat().st_size == 200_000
    assert net.ranges("/download")[-1] == f"bytes={HALF}-"
    assert sorted(p.name for p in net.raw.iterdir() if p.name[0] == ".") == []


@pytest.mark.fault("downloads", REFUSED)
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [page('<title>Quota exceeded</title><p class="uc-error-subcaption">Too many users have</p>')],
            "too many downl",
        ),
        ([page("<script>https://accounts.google.com/ServiceLogin</script>")], "it is private; in Drive: Share"),
        ([page("<p>You need access</p>")], "it is private"),
        ([page("<html>Something new</html>")], "what comes is a web page \\(HTML\\) and not a zip; in Drive: Share"),
        ([page('<form id="download-form">')], "what comes is a web page"),
        ([page("no", 403)], "403.*Anyone with the link"),
        ([page("no", 404)], "404.*check the link"),
        ([page("no", 429)], "429"),
        ([page("no", 500)], "500"),
        ([silent()], "does not answer"),
        ([file(b"x" * 99, Content_Type="text/html", cut=50)], "was cut"),
        ([status(200, b"Rar!", **NAMED)], "is a RAR file and not a zip"),
        ([file(DATA[:HALF], **NAMED)], "cut off or damaged"),
        ([page(CONFIRM.format("http://127.0.0.1:1"))], "cannot be reached"),
    ],
)
def test_drive_says_no(net, answers, message):
    net.answers[DRIVE_PAGE] = answers
    assert refused(net, message, DataError, drive=DRIVE_ID) == []


@pytest.mark.fault("downloads", REFUSED)
def test_drive_leads_in_circles(net):
    net.answers[DRIVE_PAGE] = net.answers["/download"] = [page(CONFIRM.format(net.address))]
    assert refused(net, "from page to page", drive=DRIVE_ID) == []
