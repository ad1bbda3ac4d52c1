"""Who calls, and whether they may.

`requires(scope)` is the outermost decorator of every view that is not public: who calls, and whether they may, is
settled before anything of the request is parsed, and scope before existence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import g, request

from app.access.callers import Caller, Scope
from app.errors import TryLaterError, UnauthenticatedError
from app.http.current import services
from app.http.openapi import document

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal that the fast lane met: who asked, if that is known, and what Flask is to say and to record."""

    caller: Caller | None
    error: Exception


# In the WSGI environ, where no header of a client's gets: the refusal, if Flask comes second.
REFUSED = "deputy.refused"


def requires(
    scope: Scope, *, bare_key: bool = False, from_memory: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Admit only API keys with this scope. Raises UnauthenticatedError, then ForbiddenError.

    `bare_key`: the header may also hold the key without `Bearer`. `from_memory`: the key as this process remembers
    it, perhaps revoked since; only for issuing, which finds that out before anything leaves.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key = _presented_key(bare=bare_key)
            if not from_memory:
                services().turns.take(key)
                g.caller = services().access.authenticate(key, g.request_id, g.client_address)
                services().turns.took(key, g.caller)
                g.caller.require(scope)
                return view(*args, **kwargs)
            try:
                g.caller = _remembered(key)
                g.caller.require(scope)
                return view(*args, **kwargs)
            except (UnauthenticatedError, TryLaterError):
                raise  # the first is the answer already; the second tells nothing, and has waited long enough
            except Exception:
                # A refusal, too, is only for a key that is good now: it tells something, and it is recorded.
                _ensure_good(key)
                raise

        document(guarded, scope=scope)
        return guarded

    return decorate


def _remembered(key: str) -> Caller:
    """The caller as memory knows it, unless the fast lane has met a refusal already: then that is raised here."""
    refused: Refused | None = request.environ.get(REFUSED)
    if refused is None:
        return services().authority.authenticate(key, g.request_id, g.client_address)
    if refused.caller is not None:
        g.caller = refused.caller
    raise refused.error


def _ensure_good(key: str) -> None:
    """Raises UnauthenticatedError, and then nobody is known to have called."""
    who = g.pop("caller", None)
    services().access.authenticate(key, g.request_id)
    if who is not None:
        g.caller = who


def known_caller() -> Caller | None:
    """Who calls a public view, which needs no key: None without a key that is good."""
    try:
        return services().access.authenticate(_presented_key(bare=False), g.request_id)
    except (UnauthenticatedError, TryLaterError):
        return None


def public(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view that needs no key; a test holds the list of those."""
    document(view, public=True)
    return view


def _presented_key(*, bare: bool) -> str:
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if scheme.lower() == "bearer":
        return key
    if bare and header:
        return header
    raise UnauthenticatedError("This needs an API key: Authorization: Bearer dpk_…")
