"""Return URLs: where the onboarding page may send a customer back to.

Browsers, proxies and web frameworks read unusual URLs in different ways. So a return URL is refused
unless all of them read it alike: it has no user, fragment, backslash or control character, and its
path has no empty, `.` or `..` segment, not even encoded.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

LENGTH_MAX = 2048  # characters
ENTRIES_MAX = 20
_PORTS = {"http": "80", "https": "443"}
# The parameters that the page adds
LINK, STATUS = "deputy_link", "status"
# In a path, %2E, %2F, %5C and %25 could become a `..` segment at the second reading, and so could
# dots with %20 or %3B behind them. Some programs read characters beyond ASCII as dots and slashes.
_IN_PATH = (
    r"[A-Za-z0-9._~!$&'()*+,=:@-]|%(?!2[05EeFf]|3[Bb]|5[Cc]|[0189A-Fa-f]|7[Ff])[0-9A-Fa-f]{2}"
)
_IN_QUERY = r"[A-Za-z0-9._~!$&'()*+,=:@/?-]|%(?![01]|7[Ff])[0-9A-Fa-f]{2}"
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?"
    rf"(?P<path>(/(?!\.{{1,2}}(/|\?|\Z))({_IN_PATH})+)*/?)(\?(?P<query>({_IN_QUERY})*))?",
    re.ASCII,
)
_MALFORMED = (
    "must be an http:// or https:// URL without user, fragment, white space, control characters and"
    " backslashes, and its path without empty, . and .. segments."
)


class ReturnUrl(NamedTuple):
    """A URL in its parts. Two URLs of one origin have the same scheme, host and port."""

    text: str
    scheme: str
    host: str
    port: str
    path: str  # begins with a slash
    query: str

    @classmethod
    def parse(cls, text: str) -> "ReturnUrl":
        """Return the parts of a URL. Raises ValueError for a URL that is malformed."""
        if len(text) > LENGTH_MAX:
            raise ValueError(f"must not be longer than {LENGTH_MAX} characters.")
        url = _URL.fullmatch(text)
        if url is None:
            raise ValueError(_MALFORMED)
        port = (url["port"] or _PORTS[url["scheme"]]).lstrip("0")
        if not port or int(port) > 65535:
            raise ValueError("has a port that is not from 1 to 65535.")
        path, query = url["path"] or "/", url["query"] or ""
        return cls(text, url["scheme"], url["host"].lower(), port, path, query)

    def is_below(self, entry: "ReturnUrl") -> bool:
        """Return whether this URL has the entry's origin, and its path or one below that."""
        folder = entry.path.rstrip("/") + "/"
        same_origin = self[1:4] == entry[1:4]
        return same_origin and f"{self.path}/".startswith(folder)

    def connected(self, link_id: object) -> str:
        """Return the address of the button: this URL, with the link and its status."""
        added = urlencode({LINK: link_id, STATUS: "connected"})
        return f"{self.text.partition('?')[0]}?{'&'.join(filter(None, (self.query, added)))}"


def allowed(text: str, entries: Iterable[ReturnUrl]) -> ReturnUrl:
    """Return a return URL in its parts. Raises ValueError if no entry of RETURN_URLS allows it."""
    url = ReturnUrl.parse(text)
    names = {_as_read(name) for name, _ in parse_qsl(url.query, keep_blank_values=True)}
    if taken := sorted(names & {LINK, STATUS}):
        raise ValueError(f"must not have the parameter {taken[0]}: the page adds it.")
    if not any(url.is_below(entry) for entry in entries):
        raise ValueError(
            "must have the origin of an entry of DEPUTY_RETURN_URLS, and a path below the entry's."
        )
    return url


def _as_read(name: str) -> str:
    """Return a parameter's name as lenient frameworks read it: `Deputy.Link[]` is deputy_link."""
    return re.sub("[ .+-]", "_", name.partition("[")[0].strip().lower())


def _entries(text: str) -> Iterator[ReturnUrl]:
    for entry in text.split(",") if text else []:
        url = ReturnUrl.parse(entry)
        if "?" in entry:
            raise ValueError("must be URLs without query: a path allows every query below it.")
        yield url


def return_urls(text: str) -> tuple[ReturnUrl, ...]:
    """Accept `http://…` or `https://…`, with or without a path, separated by commas."""
    entries = tuple(_entries(text))
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"must have {ENTRIES_MAX} entries at most.")
    return entries
