"""Look-up of tenants, connections and keys by id, name or another attribute.

If a text matches several of them, they are listed.

A text in the form of an id, or of a key's first characters, is never taken for a name: anybody may
choose a name, even one that equals another's id.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import click

from app.cli.operator import Lookup, Row, operator, row_of, services, table
from app.connections.listing import ConnectionFilter
from app.errors import NotFoundError
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import ApiKey, Connection, Tenant, folded
from app.tenants.tenants import TenantFilter

_MOST = 20  # most candidates that are listed
# A key's lookup digits, alone or in the key's whole text
_DIGITS = re.compile("(?:dpk_)?([0-9a-f]{16})(?:_.*)?", re.ASCII)
Thing = TypeVar("Thing")


def tenant_called(text: str) -> Tenant:
    """Return the live tenant with this id, reference or name.

    Case does not matter in a name. Raises ClickException unless exactly one tenant matches.
    """
    if tenants := _tenants(text):
        return _only("tenant", tenants, text, _describe_tenant)
    # A tenant whose name only begins with the text is listed, never chosen: a typing error must not
    # suspend another customer.
    message = ["There is no such tenant."]
    if text and (near := _list_tenants(TenantFilter(name=text))):
        message += ["The names of these begin so:", *table([*map(_describe_tenant, near)])]
    raise click.ClickException("\n".join(message))


def tenant_id_called(text: str) -> UUID:
    """Return the id of the tenant as `tenant_called` does, or the text itself if it is an id.

    An id is not looked up, because the log also has events of deleted tenants.
    """
    return _as_id(text) or tenant_called(text).id


def connection_called(text: str) -> Connection:
    """Return the connection with this id or role ARN, or the only one of an account or tenant.

    Raises ClickException unless exactly one connection matches.
    """
    account = re.search(ACCOUNT_ID_PATTERN, text, re.ASCII)
    connections: list[Connection] = []
    if connection_id := _as_id(text):
        connections = _list_connections(ConnectionFilter(connection_id=connection_id))
    elif account and text == account[0]:
        connections = _list_connections(ConnectionFilter(account_id=text))
    elif account and text.startswith("arn:"):
        connections = _list_connections(ConnectionFilter(account_id=account[0], role_arn=text))
    if not connections:
        for tenant in _tenants(text):
            connections += (
                services()
                .listing.list(operator(), tenant.id, ConnectionFilter(), limit=_MOST, after=None)
                .items
            )
    return _only("connection", connections, text, _describe_connection)


def key_called(text: str) -> ApiKey:
    """Return the API key with this id, with these first characters, or else with this name.

    Raises ClickException unless exactly one key matches.
    """
    condition: dict[str, object] = {"name": text}
    if key_id := _as_id(text):
        condition = {"id": key_id}
    elif digits := _DIGITS.fullmatch(text):
        condition = {"lookup": digits[1]}
    keys = services().api_keys.all_keys(**condition)
    return _only("key", keys, text, _describe_key)


ONE_TENANT = Lookup(tenant_called)
TENANT = click.argument("tenant", type=ONE_TENANT)


def _as_id(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _tenants(text: str) -> list[Tenant]:
    tenant_id = _as_id(text)
    if tenant_id is not None:
        with suppress(NotFoundError):
            return [services().tenants.get(operator(), tenant_id)]
    tenants = {tenant.id: tenant for tenant in _list_tenants(TenantFilter(reference=text))}
    if tenant_id is None:
        for tenant in _list_tenants(TenantFilter(name=text)):
            if tenant.name_folded == folded(text):
                tenants[tenant.id] = tenant
    return [*tenants.values()]


def _list_tenants(conditions: TenantFilter) -> list[Tenant]:
    return services().tenants.list(operator(), conditions, limit=_MOST, after=None).items


def _list_connections(conditions: ConnectionFilter) -> list[Connection]:
    return services().listing.list_all(operator(), conditions, limit=_MOST, after=None).items


def _only(noun: str, things: list[Thing], text: str, describe: Callable[[Thing], Row]) -> Thing:
    if not things:
        raise click.ClickException(f"There is no such {noun}.")
    if len(things) == 1:
        return things[0]
    message = [f"{text} could be one of these; give its id."]
    message += table([*map(describe, things[:_MOST])])
    if len(things) > _MOST:
        message.append(f"… and {len(things) - _MOST} more")
    raise click.ClickException("\n".join(message))


def _describe_tenant(tenant: Tenant) -> Row:
    return row_of(tenant, "id reference name")


def _describe_connection(connection: Connection) -> Row:
    tenant = {"tenant": connection.tenant.name}
    return row_of(connection, "id") | tenant | row_of(connection, "status role_arn")


def _describe_key(key: ApiKey) -> Row:
    return row_of(key, "id name tenant_id expires_at revoked_at")
