"""The request that is being served: its services, its principal and its body."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from flask import current_app, g
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.local import LocalProxy

from app.concurrency.places import without_places
from app.errors import RateLimitedError
from app.identity import ApiKeyPrincipal
from app.services import Services

services = cast("Services", LocalProxy(lambda: current_app.extensions["deputy"]))


def principal() -> ApiKeyPrincipal:
    """Return the principal. Only views behind `requires` have one."""
    return cast("ApiKeyPrincipal", g.principal)


def changing() -> ApiKeyPrincipal:
    """Return the principal for a change that counts against the tenant's quota.

    Call it for changes that create or revive something that can be revoked.
    """
    return services.quotas.limiting_changes(principal())


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
