"""A page that remembers what it logged and asked for, and what is asserted of it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

# npm's folder: .venv/axe, also for the tests that .venv-colab runs.
AXE = Path(os.environ.get("AXE", Path(__file__).parents[2] / ".venv/axe")) / "node_modules/axe-core/axe.min.js"

VIEWPORTS = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}

# No sandbox: as root Chromium starts only so. No resolver: a foreign host fails at once, with a network or without one.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

# What Voila's page logs, whatever the notebook: a pattern, and why it may. JupyterLab's does not.
VOILA_ITSELF = {
    r"(?s)reading 'Queue'.*/@voila-dashboards/widgets-manager7/": "under ipywidgets 7 it takes MathJax 3 for MathJax 2",
}


@dataclass
class Record:
    """What a page has done since it was opened."""

    errors: list[str] = field(default_factory=list)  # "message @ address of the script or the file"
    requests: list[str] = field(default_factory=list)  # web sockets too


RECORDS = {}  # page -> Record


def open_page(browser, viewport="wide", **options):
    """A page of a context of its own (no cookies, no storage, no service worker)."""
    context = browser.new_context(**VIEWPORTS[viewport], service_workers="block", **options)
    page = context.new_page()
    record = RECORDS[page] = Record()

    def on_console(message):
        if message.type == "error":
            record.errors.append(f"{message.text} @ {message.location.get('url', '')}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: record.errors.append(f"{error.stack or error} @ {page.url}"))
    page.on("websocket", lambda socket: record.requests.append(socket.url))
    context.on("request", lambda request: record.requests.append(request.url))
    return page


def foreign(url):
    """Whether a request leaves this machine."""
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in ("127.0.0.1", "localhost")


def quiet(page):
    """Fails if the page logged an error or asked another machine for anything."""
    page.wait_for_timeout(100)  # what was logged just now is still on its way here
    record = RECORDS[page]
    allowed = VOILA_ITSELF if "/voila/render/" in page.url else ()
    found = record.errors + [f"request to {url}" for url in dict.fromkeys(record.requests) if foreign(url)]
    found = [line for line in found if not any(re.search(pattern, line) for pattern in allowed)]
    assert not found, "\n".join(found)


def serious(page, selector="body"):
    """What axe-core finds of impact serious or critical below the selector, one line a node."""
    if not page.evaluate("typeof window.axe === 'object' && !!window.axe.run"):
        # Not add_script_tag: with require.js on the page axe would register as a module there, not as window.axe.
        page.evaluate(f"(() => {{ const define = undefined, module = undefined; {AXE.read_text()} }})()")
    found = page.evaluate("selector => axe.run(selector, {resultTypes: ['violations']})", selector)["violations"]
    return [
        f"{v['id']} ({v['impact']}): {v['help']}: {' '.join(map(str, node['target']))}: {node['html'][:300]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def axe(page, selector="body"):
    """Fails, with a list, on faults of accessibility that are serious or critical."""
    found = serious(page, selector)
    assert not found, "\n".join(found)
