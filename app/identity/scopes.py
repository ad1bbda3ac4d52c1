"""Scopes: what an API key may do."""

import enum
import functools


class Scope(enum.StrEnum):
    """The permissions that a key can have.

    Their order is that of the bits in `api_keys.scope_bits`. So append new scopes, and never
    reorder them.
    """

    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    CONNECTIONS_READ = "connections:read"
    CONNECTIONS_WRITE = "connections:write"
    CREDENTIALS_ISSUE = "credentials:issue"
    AUDIT_READ = "audit:read"
    WEBHOOKS_WRITE = "webhooks:write"
    KEYS_WRITE = "keys:write"
    KEYS_DELEGATE = "keys:delegate"
    TENANTS_CREATE = "tenants:create"


MAKES_KEYS = frozenset({Scope.KEYS_WRITE, Scope.KEYS_DELEGATE})
# The command line's `all` stands for these. keys:delegate can't be combined with keys:write.
ALL_SCOPES = frozenset(Scope) - {Scope.KEYS_DELEGATE}
_BITS = {scope: 1 << place for place, scope in enumerate(Scope)}


def to_bits(scopes: frozenset[Scope]) -> int:
    return sum(_BITS[scope] for scope in scopes)


@functools.cache  # few combinations of scopes are in use
def from_bits(bits: int) -> frozenset[Scope]:
    return frozenset(scope for scope, bit in _BITS.items() if bits & bit)
