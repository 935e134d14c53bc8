"""A web server on this machine that misbehaves, one answer after another."""

import contextlib
import email.utils
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATE = email.utils.formatdate(1_790_000_000, usegmt=True)


class Server(ThreadingHTTPServer):
    """Answers a path with the next of its `answers`, the last of them again and again; `asked` is what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.over = {}, [], threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path):
        """The ranges that were asked for at a path, None for all of it."""
        return [headers.get("Range") for asked, _, headers in self.asked if asked == path]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.asked.append((path, query, dict(self.headers)))
        left = self.server.answers.get(path) or [status(404)]
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the other side has had enough
            (left.pop(0) if len(left) > 1 else left[0])(self)

    def head(self, code, headers):
        self.send_response(code)
        for name, value in ({"Connection": "close"} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def status(code, body=b"", **headers):
    """Answers with a status, and headers whose dashes are written as underscores."""

    def answer(handler):
        handler.head(code, {"Content-Length": len(body)} | {k.replace("_", "-"): v for k, v in headers.items()})
        handler.wfile.write(body)

    return answer


def page(text, code=200):
    return status(code, text.encode(), Content_Type="text/html; charset=utf-8")


def as_json(value, code=200):
    return status(code, json.dumps(value).encode(), Content_Type="application/json")


def redirect(to):
    return status(302, Location=to)


def file(data, etag='"one"', date=None, cut=None, stall=None, ranges=True, **wrong):
    """Answers as a good server does with a file, but for what is asked for.

    `cut` and `stall` are the bytes of the file after which the connection ends or nothing more comes; `wrong` are
    headers put in the place of the right ones, None for none.
    """

    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if ranges else None
        if asked and handler.headers.get("If-Range") not in (None, etag, date) and ranges != "always":
            asked = None
        first = int(asked[1]) if asked else 0
        headers = {"Content-Length": len(data) - first, "ETag": etag, "Last-Modified": date}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        headers |= {name.replace("_", "-"): value for name, value in wrong.items()}
        headers = {name: value for name, value in headers.items() if value is not None}
        handler.head(206 if asked else 200, headers)
        handler.wfile.write(data[first : cut or stall])
        if stall is not None:
            handler.wfile.flush()
            handler.server.over.wait(2)

    return answer


def in_chunks(data, end=True):
    """Answers without a length, in chunks; without the last one the answer is cut."""

    def answer(handler):
        handler.head(200, {"Transfer-Encoding": "chunked", "ETag": '"one"'})
        for start in range(0, len(data), 50_000):
            chunk = data[start : start + 50_000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n" if end else b"")

    return answer


def silent(seconds=2.0, then=None):
    """Says nothing for a while, then answers, or ends."""

    def answer(handler):
        handler.server.over.wait(seconds)
        if then:
            then(handler)

    return answer


def garbage(handler):
    """Answers with what is no HTTP."""
    handler.wfile.write(b"\x00\x01SSH-2.0-nonsense\r\n\r\n")
