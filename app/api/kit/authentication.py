"""Authentication of requests: who calls, and with which scope.

Every view is either `public` or wrapped by `requires(scope, …)` right below its route
(`Blueprint.operation`). The key and its scope are checked before the request is parsed, and before
the database is asked whether a resource exists.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any

from flask import g, request

from app.api.kit.openapi import View, document
from app.api.kit.prices import STOP, price_of
from app.errors import TryLaterError, UnauthenticatedError
from app.http.current import services
from app.identity import ApiKeyPrincipal
from app.identity.scopes import Scope

Guard = Callable[[str], AbstractContextManager[ApiKeyPrincipal]]


def requires(
    *scopes: Scope, fails: Sequence[int], guard: Guard | None = None, bare: bool = False
) -> Callable[[View], View]:
    """Admit only API keys with one of these scopes.

    `guard`: authenticates the key, and holds what the request needs while the view runs; None: the
    key is read from the database, and the request counts against its tenant's share. `bare`: the
    header may also hold the key without `Bearer`. Raises UnauthenticatedError, then ForbiddenError.
    """

    def decorate(view: View) -> View:
        guarding = guard or partial(_in_tenant_share, price_of(view.__name__))

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with guarding(_presented_key(bare=bare)) as g.principal:
                g.principal.require(*scopes)
                return view(*args, **kwargs)

        return document(guarded, scopes=scopes, fails=fails)

    return decorate


@contextmanager
def _in_tenant_share(price: float, key: str) -> Iterator[ApiKeyPrincipal]:
    share = services.tenant_share
    principal, tenant_scope = None, share.tenant_of(key)
    if tenant_scope is None:  # the key is unknown, or the vendor's
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
def from_memory(key: str) -> Iterator[ApiKeyPrincipal]:
    """Trust a key that this process has in memory.

    The key may have been revoked since. So only issuing trusts it: it reads the key again
    before credentials leave.
    """
    with refusals_for_good_keys(key):
        yield services.authorization.authenticate(key, g.request_id, g.client_address)


@contextmanager
def refusals_for_good_keys(key: str) -> Iterator[None]:
    """Authenticate the key again before a refusal leaves.

    A refusal reveals something about the tenant, and is recorded. So this raises
    UnauthenticatedError instead when the key is no longer valid, and RateLimitedError when its
    tenant has too many refusals. UnauthenticatedError and TryLaterError pass unchanged: a bad key
    gets the first anyway, and the second reveals nothing.
    """
    try:
        yield
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
        principal = services.api_keys.authenticate(_presented_key())
    except (UnauthenticatedError, TryLaterError):
        return False
    return principal.is_vendor and scope in principal.scopes


def public(view: View) -> View:
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
