"""The reading of a request's body."""

from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from app.concurrency.places import without_places
from app.errors import RateLimitedError

BODY_KIB = 256  # the longest list, ten thousand account ids, has 170 KiB


@contextmanager
def whole_body() -> Iterator[None]:
    """Wrap the reading of a body, and raise BadRequest if that fails.

    It fails when the body is late, cut short, or in malformed chunks.
    """
    try:
        with without_places():
            yield
    except (RateLimitedError, RequestEntityTooLarge):
        raise
    except Exception as error:  # each server raises its own; gunicorn's have no common class
        raise BadRequest(
            "The body did not arrive whole and in time. Send all of it right after the header."
        ) from error
