"""Look-up of tenants, connections and keys by id or by another of their names.

If a text could mean several of them, they are listed.

A text in the form of an id, or of a key's first characters, is never taken for a name. Anybody may
choose a name, and it may equal another's id.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import click

from app.cli.operator import Row, operator, row_of, services, table
from app.connections.listing import ConnectionFilter
from app.errors import NotFoundError
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import ApiKey, Connection, Tenant, folded
from app.tenants.tenants import TenantFilter

_MOST = 20  # upper bound of the candidates listed
# The lookup digits of a key, also in its whole text
_DIGITS = re.compile("(?:dpk_)?([0-9a-f]{16})(?:_.*)?", re.ASCII)
Found = TypeVar("Found")


def tenant_called(text: str) -> Tenant:
    """Return the live tenant with this id, reference or name.

    Case does not matter in a name. Raises ClickException for none and for several.
    """
    if found := _tenants(text):
        return _the_one("tenant", found, text, _of_tenant)
    # A tenant whose name only begins with the text is listed, never chosen: a typing error must not
    # suspend another customer.
    near = (
        services().tenants.list(operator(), TenantFilter(name=text), limit=_MOST, after=None).items
    )
    begins = (
        ["The names of these begin so:", *table(map(_of_tenant, near))] if text and near else []
    )
    raise click.ClickException("\n".join(["There is no such tenant.", *begins]))


def tenant_id_called(text: str) -> UUID:
    """Return the id of the tenant as `tenant_called` does, or the text itself if it is an id.

    The audit events of a deleted tenant stay.
    """
    return as_id(text) or tenant_called(text).id


def connection_called(text: str) -> Connection:
    """Return the connection with this id or role ARN, or the only one of an account or tenant.

    Raises ClickException for none and for several.
    """
    listing, who, found = services().listing, operator(), []
    account = re.search(ACCOUNT_ID_PATTERN, text, re.ASCII)
    if (connection_id := as_id(text)) is not None:
        found = listing.list_all(
            who, ConnectionFilter(connection_id=connection_id), limit=1, after=None
        ).items
    elif account and (text.startswith("arn:") or text == account[0]):
        role = text if text != account[0] else None
        wanted = ConnectionFilter(account_id=account[0], role_arn=role)
        found = listing.list_all(who, wanted, limit=_MOST, after=None).items
    for tenant in () if found else _tenants(text):
        found += listing.list(who, tenant.id, ConnectionFilter(), limit=_MOST, after=None).items
    return _the_one("connection", found, text, _of_connection)


def key_called(text: str) -> ApiKey:
    """Return the API key with this id, with these first characters, or else with this name.

    Raises ClickException for none and for several.
    """
    keys, digits = services().api_keys.all_keys(), _DIGITS.fullmatch(text)
    if (key_id := as_id(text)) is not None:
        found = [key for key in keys if key.id == key_id]
    elif digits:
        found = [key for key in keys if key.lookup == digits[1]]
    else:
        found = [key for key in keys if key.name == text]
    return _the_one(
        "key",
        found,
        text,
        lambda key: row_of(key, "id", "name", "tenant_id", "expires_at", "revoked_at"),
    )


def as_id(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _tenants(text: str) -> Sequence[Tenant]:
    tenants, who = services().tenants, operator()
    if (tenant_id := as_id(text)) is not None:
        with suppress(NotFoundError):
            return [tenants.get(who, tenant_id)]
    found = tenants.list(who, TenantFilter(reference=text), limit=1, after=None).items
    if tenant_id is not None:
        return found
    named = tenants.list(who, TenantFilter(name=text), limit=_MOST, after=None).items
    return found + [one for one in named if one.name_folded == folded(text) and one not in found]


def _the_one(noun: str, found: Sequence[Found], text: str, about: Callable[[Found], Row]) -> Found:
    if not found:
        raise click.ClickException(f"There is no such {noun}.")
    if len(found) > 1:
        more = [f"… and {len(found) - _MOST} more"] if len(found) > _MOST else []
        could_be = "\n".join([*table(map(about, found[:_MOST])), *more])
        raise click.ClickException(f"{text} could be one of these; give its id.\n{could_be}")
    return found[0]


def _of_tenant(tenant: Tenant) -> Row:
    return row_of(tenant, "id", "reference", "name")


def _of_connection(one: Connection) -> Row:
    return {"id": one.id, "tenant": one.tenant.name, "status": one.status, "role_arn": one.role_arn}
