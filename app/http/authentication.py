"""Who calls, and with which scope.

Every view is either `public` or wrapped by `requires(scope, …)` right below its route
(`Blueprint.operation`): the key and its scope are checked before anything of the request is parsed
and before the database is asked whether a thing exists.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

from flask import g, request

from app.access.callers import Caller, Scope
from app.concurrency.fair_lock import urgent
from app.errors import TryLaterError, UnauthenticatedError
from app.http.current import services
from app.http.openapi import P, R, document
from app.http.prices import STOP, price_of


def requires(*scopes: Scope, fails: Sequence[int]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Admit only API keys with one of these scopes. Raises UnauthenticatedError, then
    ForbiddenError.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        price = price_of(view.__name__)

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key, share = _presented_key(), services().tenant_share
            caller, tenant_id = None, share.tenant_of(key)
            if tenant_id is None:  # not known, or bound to none
                caller = _authenticate(key)
                tenant_id = caller.tenant_id
            # Those who write without a pause must not keep the vendor from stopping them.
            urgent.set(price == STOP and tenant_id is None)
            with share.stop(key, tenant_id) if price == STOP else share.request(tenant_id, price):
                g.caller = caller or _authenticate(key)
                g.caller.require(*scopes)
                return view(*args, **kwargs)

        return document(guarded, scopes=scopes, fails=fails)

    return decorate


def _authenticate(key: str) -> Caller:
    """The caller. A key that is no longer good uses up nobody's share from now on. Raises
    UnauthenticatedError.
    """
    share = services().tenant_share
    try:
        caller = services().api_keys.authenticate(key, g.request_id, g.client_address)
    except UnauthenticatedError:
        share.forget(key)
        raise
    share.remember(key, caller)
    return caller


def requires_from_memory(
    scope: Scope, *, fails: Sequence[int], bare: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`requires`, with the key as this process remembers it; it may be revoked since.

    For issuing alone, which reads the key again before credentials leave. `bare`: the header may
    also hold the key without `Bearer`.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key = _presented_key(bare=bare)
            with refusals_for_good_keys(key):
                g.caller = services().authorization.authenticate(
                    key, g.request_id, g.client_address
                )
                g.caller.require(scope)
                return view(*args, **kwargs)

        return document(guarded, scopes=(scope,), fails=fails)

    return decorate


@contextmanager
def refusals_for_good_keys(key: str) -> Iterator[None]:
    """Reads the key again before a refusal leaves. Raises UnauthenticatedError instead when the key
    is no longer good, and RateLimitedError when too many of its tenant's are refused.

    Refusals tell something of the tenant, and they are recorded. Two are raised at once:
    UnauthenticatedError is what a bad key gets anyway, and TryLaterError tells nothing, of a
    request that has waited long enough.
    """
    try:
        yield
    except (UnauthenticatedError, TryLaterError):
        raise
    except Exception:  # AppError, HTTPException and bugs alike: a revoked key gets only a 401
        caller = g.pop("caller", None)  # without one, the UnauthenticatedError is not recorded
        if caller is not None:
            services().tenant_share.admit_refusal(caller)
        services().api_keys.authenticate(key, g.request_id)
        if caller is not None:
            g.caller = caller
        raise


def known_caller() -> Caller | None:
    """Who calls a public view; None without a good key."""
    try:
        return services().api_keys.authenticate(_presented_key())
    except (UnauthenticatedError, TryLaterError):
        return None


def public(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view that needs no key. tests/test_architecture.py lists these views."""
    return document(view, public=True)


def _presented_key(*, bare: bool = False) -> str:
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if scheme.lower() == "bearer":
        return key
    if bare and header:
        return header
    raise UnauthenticatedError("This needs an API key: Authorization: Bearer dpk_…")
