"""Bodies in chunks, as gunicorn's own parser hands them to us."""

from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.unreader import IterUnreader

MALFORMED_CHUNKS = [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n"]


def chunked(body):
    """Options for a request of Flask's test client."""
    return {
        "environ_overrides": {
            "wsgi.input": Body(ChunkedReader(None, IterUnreader([body]))),
            "wsgi.input_terminated": True,
            "HTTP_TRANSFER_ENCODING": "chunked",
        }
    }
