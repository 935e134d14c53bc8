"""Requests that are made with patience, and their failures in plain words.

No message holds an address with its query, where keys and signatures are: errors of requests do, so none of them is
shown or chained.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from drywall_seg.data.coco import DataError

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""Without a byte; Roboflow and Drive may think for half a minute before the first."""
WAITS = (1, 4, 15)
"""Seconds before each new try."""
LONGEST_WAIT = 60
"""Of what a server asks for by Retry-After."""
LONGEST_PAGE = 4 * 1024**2
"""Of an answer that is no zip."""
ADVANCE = 1024**2
"""Bytes by which a download must have grown for its tries to be counted anew."""

_PASSING = {408: "it waited too long for us", 429: "too many requests were made"}
_KNOWN = {401: "the key is missing or wrong", 403: "access is not allowed", 404: "it is not there", 410: "it is gone"}


# It writes every address that is asked, whole, where somebody turns debugging on.
logging.getLogger("urllib3.connectionpool").addFilter(
    lambda record: record.levelno > logging.DEBUG or "?" not in record.getMessage()
)


class DownloadError(DataError):
    """Data that could not be fetched; the message says what happened and what to do."""


class PassingError(DownloadError):
    """A failure that another try may mend, after `wait` seconds at least."""

    wait = 0.0


def patiently(action: Callable[[], Any], done: Callable[[], int] = lambda: 0) -> Any:
    """Returns what an action gives, tried again with growing waits after a PassingError; anew where `done` has grown.

    Raises:
        PassingError: The last one, when the waits are used up.
    """
    tries, best = 0, done()
    while True:
        try:
            return action()
        except PassingError as error:
            if done() >= best + ADVANCE:
                tries, best = 0, done()
            if tries == len(WAITS):
                raise
            wait = max(WAITS[tries], min(error.wait, LONGEST_WAIT))
            tqdm.write(f"{error}; trying again in {wait:g} s")
        tries += 1
        time.sleep(wait)


class Server(requests.Session):
    """Whom one asks: `what` messages call that which is asked for, `advice` says what to do by status."""

    def __init__(self, what: str, advice: dict[int, str]) -> None:
        super().__init__()
        self.what, self.advice, self.max_redirects = what, advice, 10
        self.headers["User-Agent"] = "Mozilla/5.0"  # Drive has another page for what does not call itself so

    def ask(self, url: str, **options: Any) -> requests.Response:
        """Makes one request, with `headers` or `params`, whose body is still to be read.

        Raises:
            DownloadError: If there is no answer, or one that says no; a PassingError where it may be worth another try.
        """
        try:
            response = self.get(url, **options, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            failure = failure_of(error, url, self.what)
        else:
            if response.status_code in (200, 206, 416):
                return response
            response.close()
            failure = self._refusal(response)
        raise failure  # out here, so that nothing with the address is chained to it

    def read_page(self, response: requests.Response) -> bytes:
        """Returns an answer's body, or its first LONGEST_PAGE bytes.

        Raises:
            PassingError: If it is cut or stalls.
        """
        page = b""
        try:
            with response:
                for chunk in response.iter_content(64 * 1024):
                    page += chunk
                    if len(page) > LONGEST_PAGE:
                        break
                return page
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            failure = failure_of(error, response.url, self.what)
        raise failure

    def _refusal(self, response: requests.Response) -> DownloadError:
        status = response.status_code
        words = _PASSING.get(status) or _KNOWN.get(status) or ("its server fails" if status >= 500 else "no file")
        passing = status >= 500 or status in _PASSING
        todo = self.advice.get(status) or ("try it later" if passing else "check what was given")
        message = f"{self.what}: {words} (answer {status}); {todo}"
        if not passing:
            return DownloadError(message)
        failure = PassingError(message)
        wait = response.headers.get("Retry-After", "")  # else a date, which no one needs here
        failure.wait = float(wait) if re.fullmatch(r"\d{1,9}", wait) else 0.0
        return failure


def address_of(url: str) -> tuple[str, str]:
    """Returns an address without user, port and query, and its host; both "" where it is no address for the web.

    >>> address_of("https://user:word@example.org:8080/a/b.zip?key=1")
    ('https://example.org/a/b.zip', 'example.org')
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    web = parts.scheme in ("http", "https") and parts.hostname
    return (f"{parts.scheme}://{parts.hostname}{parts.path}", parts.hostname) if web else ("", "")


def failure_of(error: Exception, url: str, what: str) -> DownloadError:
    """Returns what went wrong on the way, in words that hold nothing of the address but its host."""
    host, text = address_of(url)[1] or "the address", f"{type(error).__name__} {error}"
    if isinstance(error, requests.TooManyRedirects):
        return DownloadError(f"{what}: {host} sends from one address to the next and never answers; try it later")
    if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
        return DownloadError(f"{what}: {host} has no valid certificate; check this machine's clock and network")
    if isinstance(error, requests.exceptions.ProxyError):
        return DownloadError(f"{what}: the proxy does not let through to {host}; check HTTPS_PROXY")
    if isinstance(error, (ValueError, urllib3.exceptions.LocationValueError)):
        return DownloadError(f"{what}: {host} answers with an address or a header that cannot be read")
    if "NameResolution" in text or "getaddrinfo" in text or "Name or service not known" in text:
        return PassingError(f"{what}: the name {host} is not found; is there a network here?")
    if isinstance(error, requests.Timeout) or "imed out" in text:
        seconds = CONNECT_SECONDS if isinstance(error, requests.ConnectTimeout) else READ_SECONDS
        return PassingError(f"{what}: {host} does not answer within {seconds} s; try it later")
    if "refused" in text or "NewConnection" in text or "unreachable" in text:
        return PassingError(f"{what}: {host} cannot be reached; is there a network here?")
    return PassingError(f"{what}: the connection to {host} was cut; run this again")
