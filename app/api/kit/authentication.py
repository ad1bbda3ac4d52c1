"""Authentication of requests: who calls, and with which scope.

`Blueprint.operation` wraps every view by `requires`, except those that are PUBLIC. The key and its
scope are checked before the request is parsed, and before the database is asked whether a resource
exists.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial, wraps
from typing import Any

from flask import g, request

from app.api.kit.openapi import View
from app.errors import ConnectionClosedError, RateLimitedError, TryLaterError, UnauthenticatedError
from app.http.current_request import services
from app.identity import ApiKeyPrincipal
from app.identity.scopes import Scope
from app.limits.limits import UNKNOWN_KEYS
from app.limits.request_costs import ORDINARY, STOP, price_of, price_of_body

# AWS's SDKs send this endpoint a key without `Bearer`, and read its refusals: Java and Go read
# `code` and `message`, JavaScript reads `Code` and `Message`.
CONTAINER = "credentials.get_container_credentials"
# The SDKs that ask for credentials give up after two seconds, and readiness must not wait either
_BRIEF_LOOK_UP = UNKNOWN_KEYS._replace(patience=1.0)

Guard = Callable[[], AbstractContextManager[ApiKeyPrincipal]]


def requires(view: View, scopes: list[Scope], guard: Guard | None) -> View:
    """Return the view for API keys with one of these scopes.

    `guard`: authenticates the key; the view runs in its `with` block. With None, the key is read
    from the database, and the request counts against its tenant's share. A key that only
    tenants:create lets in reaches the tenants that it created. Raises UnauthenticatedError, then
    ForbiddenError, then NotFoundError.
    """
    guarding = guard or partial(_in_tenant_share, price_of(view.__name__))

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with guarding() as g.principal:
            granted = g.principal.require(*scopes)
            if granted == {Scope.TENANTS_CREATE} and "tenant_id" in kwargs:
                services.api_keys.ensure_created(g.principal, kwargs["tenant_id"])
            return view(*args, **kwargs)

    return guarded


@contextmanager
def _in_tenant_share(price: float) -> Iterator[ApiKeyPrincipal]:
    key, share = _presented_key(), services.tenant_share
    principal, tenant_scope = None, share.tenant_of(key)
    if tenant_scope is None:  # the key is unknown, or the vendor's
        with share.looking_up():
            principal = _authenticate(key)
        tenant_scope = principal.tenant_scope
    stops = price == STOP
    with share.stop(key, tenant_scope) if stops else share.request(tenant_scope, price):
        yield principal or _authenticate(key)


def _authenticate(key: str) -> ApiKeyPrincipal:
    """Return the key's principal. Raises UnauthenticatedError.

    After the error, requests with this key no longer count against its tenant's share.
    """
    share = services.tenant_share
    try:
        principal = services.api_keys.authenticate(key, g.request_id, g.client_address)
    except UnauthenticatedError:
        share.remember(key, None)
        raise
    share.remember(key, principal.tenant_scope)
    return principal


@contextmanager
def from_memory() -> Iterator[ApiKeyPrincipal]:
    """Trust a key that this process has in memory.

    The key may have been revoked since. So only issuing uses this: it reads the key again before
    it returns credentials.
    """
    key, authorization = _presented_key(), services.authorization
    sender = g.request_id, g.client_address
    with _share_for_costly_body(), refusals_for_good_keys(key):
        principal = authorization.authenticate_from_memory(key, *sender)
        if principal is None:
            with services.tenant_share.looking_up(_BRIEF_LOOK_UP):
                principal = authorization.authenticate(key, *sender)
        yield principal


def _share_for_costly_body() -> AbstractContextManager[object]:
    """Count the request against its tenant's share if its body may cost much.

    The limits of requests for credentials count requests, not their cost. Clients send short bodies
    with a Content-Length.
    """
    if price_of_body(request.content_length or 0) or "Transfer-Encoding" in request.headers:
        return _in_tenant_share(ORDINARY)
    return nullcontext()


@contextmanager
def refusals_for_good_keys(key: str) -> Iterator[None]:
    """Authenticate the key again before a refusal leaves.

    A refusal reveals something about the tenant, and is recorded. So this raises
    UnauthenticatedError instead when the key is no longer valid, and RateLimitedError when its
    tenant has too many refusals. UnauthenticatedError and TryLaterError pass unchanged: a bad key
    gets the first anyway, and the second reveals nothing. But a RateLimitedError counts as a
    refusal, and so may be held: a client that gets it at once may repeat its request at once.
    """
    try:
        yield
    except RateLimitedError as error:
        # A connection that is closed must not wait again
        if "principal" in g and not isinstance(error, ConnectionClosedError):
            # The limit that was exceeded first is the one to name
            with suppress(RateLimitedError):
                services.tenant_share.acquire_refusal(g.principal)
        raise
    except (UnauthenticatedError, TryLaterError):
        raise
    # AppError, HTTPException and bugs alike: a revoked key gets only a 401
    except Exception:
        # Without a principal in `g`, an UnauthenticatedError is not recorded
        principal = g.pop("principal", None)
        if principal is not None:
            services.tenant_share.acquire_refusal(principal)
        services.api_keys.authenticate(key, g.request_id)
        if principal is not None:
            g.principal = principal
        raise


def is_vendor_with(scope: Scope) -> bool:
    """Return whether the request of a public view has a valid vendor key with this scope."""
    try:
        with services.tenant_share.looking_up(_BRIEF_LOOK_UP):
            principal = services.api_keys.authenticate(_presented_key())
    except (UnauthenticatedError, TryLaterError):
        return False
    return principal.is_vendor and scope in principal.scopes


def _presented_key() -> str:
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    if scheme.lower() == "bearer":
        return key
    if header and request.endpoint == CONTAINER:
        return header
    raise UnauthenticatedError("This needs an API key: Authorization: Bearer dpk_...")
