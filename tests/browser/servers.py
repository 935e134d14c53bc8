"""Voila and JupyterLab, each a process of its own that knows nothing of the user's Jupyter."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version

LAB = [
    "jupyterlab",
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
    "--LabApp.expose_app_in_browser=True",  # the kernel's state, for the tests
]
VOILA = ["voila", "--no-browser", "--Voila.ip=127.0.0.1", "--token=", "--show_tracebacks=True", "--template=offline"]

# Voila's own template asks a CDN for an icon font, whatever the notebook. This one is the same without that.
OFFLINE = """{%- extends 'lab/index.html.j2' -%}
{%- block notebook_css -%}
{%- set css -%}{{ super() }}{%- endset -%}
{%- set icons = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@^5/css/" -%}
{{ css | replace(icons ~ "all.min.css", "data:text/css,") | replace(icons ~ "v4-shims.min.css", "data:text/css,") }}
{%- endblock -%}
"""


def jupyter_environment(folder):
    """Environment in which the kernel named python3 is this interpreter, and every setting is ours."""
    # No question about news, no look for updates; every cell in the DOM, on the screen or not (as Lab 3 has it anyway).
    settings = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
    if not version("jupyterlab").startswith("3."):
        settings["notebook-extension/tracker"] = {"windowingMode": "none"}
    for name, values in settings.items():
        path = folder / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    template = folder / "data/voila/templates/offline"
    template.mkdir(parents=True)
    (template / "conf.json").write_text('{"base_template": "lab"}')
    (template / "index.html.j2").write_text(OFFLINE)
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    drop = ("JUPYTER", "JPY_", "MPLBACKEND", "IPYTHON")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    return kept | own | {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serve(command, folder, environment, path):
    """The address of `python -m command` in a folder, from when `path` answers until the block ends."""
    port = free_port()
    log = environment["JUPYTER_CONFIG_DIR"] + f"-{command[0]}.log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, f"--port={port}"], cwd=folder, env=environment, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(url + path, timeout=5).close()
                break
            assert process.poll() is None, open(log).read()
            time.sleep(0.1)
        else:
            raise TimeoutError(open(log).read())
        yield url
    finally:
        process.terminate()  # Jupyter then ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def shut_down_kernels(url):
    """Ends every kernel of a JupyterLab server, which outlive their pages there."""
    with urllib.request.urlopen(url + "/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{url}/api/sessions/{session['id']}", method="DELETE")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request).close()
