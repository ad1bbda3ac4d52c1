"""The path of DEPUTY_PUBLIC_URL, where there is one: `https://example.com/deputy` is served below `/deputy`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


class PublicPath:
    """A WSGI application in front of another, whose links and redirects then begin with `path`.

    The path comes from the settings and from no header. Some proxies take it off and some hand it on, and a health
    check that asks this process itself knows nothing of it: requests are served with it and without.
    """

    def __init__(self, inner: "WSGIApplication", path: str) -> None:
        self._inner = inner
        self._path = path

    def __call__(self, environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        asked = environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = self._path
        if f"{asked}/".startswith(f"{self._path}/"):
            environ["PATH_INFO"] = asked[len(self._path) :] or "/"
        return self._inner(environ, start_response)
