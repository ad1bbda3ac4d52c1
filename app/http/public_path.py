"""The path of DEPUTY_PUBLIC_URL: `https://example.com/deputy` is served below `/deputy`."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication


class PublicPath:
    """WSGI middleware that makes links and redirects begin with `path`.

    The path comes from the settings alone. Requests are served with the path and without it: some
    proxies remove it, some keep it, and a health check that asks this process directly does not
    know it.
    """

    def __init__(self, inner: WSGIApplication, path: str) -> None:
        self._inner = inner
        self._path = path

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        asked = environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = self._path
        if f"{asked}/".startswith(f"{self._path}/"):
            environ["PATH_INFO"] = asked[len(self._path) :] or "/"
        return self._inner(environ, start_response)
