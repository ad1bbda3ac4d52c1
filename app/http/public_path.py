"""The path of DEPUTY_PUBLIC_URL: `https://example.com/deputy` is served below `/deputy`."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication


def serve_below(path: str, application: WSGIApplication) -> WSGIApplication:
    """Return the application with links and redirects that begin with `path`.

    The path comes from the settings alone. Requests are served with the path and without it: some
    proxies remove the path, some keep it, and a health check of this process does not know it.
    """

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        requested = environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = path
        if f"{requested}/".startswith(f"{path}/"):
            environ["PATH_INFO"] = requested.removeprefix(path) or "/"
        return application(environ, start_response)

    return serve
