"""What a web process does before gunicorn reads a request (app/http/sockets.py), for the tests'
WSGI clients.
"""

import io
from contextlib import nullcontext

from werkzeug.datastructures import EnvironHeaders

from app.http.plain_requests import PlainReader

_GUNICORNS = {"Server", "Date", "Connection"}


class PlainFirst:
    """WSGI middleware that gives plain requests to their endpoint first, and all others to
    Flask.
    """

    def __init__(self, app):
        self._inner = app.wsgi_app
        self._endpoint = app.extensions["deputy.plain_requests"]
        self._reader = PlainReader(self._endpoint.target)

    def __call__(self, environ, start_response):
        if (request := self._read(environ)) is None:
            return self._inner(environ, start_response)
        answer = self._endpoint.answer(request, environ.get("REMOTE_ADDR", ""), nullcontext)
        if not isinstance(answer, bytes):
            return self._inner(environ | answer, start_response)
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        fields = [
            (name, value)
            for name, value in (line.split(": ", 1) for line in lines)
            if name not in _GUNICORNS
        ]
        start_response(status.removeprefix("HTTP/1.1 "), fields)
        return [body]

    def _read(self, environ):
        """Return the request as it would be read in one piece."""
        body = environ["wsgi.input"] if environ.get("CONTENT_LENGTH", "0") != "0" else io.BytesIO()
        if not isinstance(body, io.BytesIO):
            return None
        path = environ["PATH_INFO"] + ("?" if environ.get("QUERY_STRING") else "")
        fields = [f"{name}: {value}" for name, value in EnvironHeaders(environ) if value]
        header = "\r\n".join([f"{environ['REQUEST_METHOD']} {path} HTTP/1.1", *fields, "", ""])
        return self._reader.read(header.encode() + body.getvalue())


def install(app):
    """Let the clients of this application ask as clients of a web process do."""
    if not isinstance(app.wsgi_app, PlainFirst):
        app.wsgi_app = PlainFirst(app)
