"""Find tenants, connections and keys by what the operator calls them: an id, a name and so on.

If a text matches several of them, they are listed.

A text in the form of an id, or of a key's first characters, is never taken for a name: anybody may
choose a name, even one that equals another's id.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import click

from app.cli.commands import Lookup, operator, row_of, services, table
from app.connections.listing import ConnectionFilter
from app.ids import ACCOUNT_ID
from app.store.keyset import Page, every
from app.store.models import ApiKey, Connection, Tenant, folded
from app.tenants.tenants import TenantFilter

_MOST = 20  # most candidates that are listed
# A key's lookup digits, alone or in the key's whole text
_DIGITS = re.compile("(?:dpk_)?([0-9a-f]{16})(?:_.*)?", re.ASCII)
Thing = TypeVar("Thing")
_TENANT_COLUMNS = "id reference name"


def tenant_called(text: str) -> UUID:
    """Return the id of the live tenant with this id, reference or name.

    Case does not matter in a name. Raises ClickException unless exactly one tenant matches.
    """
    if tenants := _tenants(text):
        return _only("tenant", tenants, text, _TENANT_COLUMNS).id
    # A tenant whose name only begins with the text is listed, never chosen: a typing error must not
    # suspend another customer.
    message = ["There is no such tenant."]
    if text and (near := _first(services.tenants.list, TenantFilter(name=text))):
        message += ["The names of these begin so:", *_listed(near, _TENANT_COLUMNS)]
    raise click.ClickException("\n".join(message))


def live_or_deleted_tenant(text: str) -> Tenant:
    """Return the tenant as `tenant_called` does, or else the deleted one with this text.

    Raises ClickException unless exactly one tenant matches.
    """
    if not _tenants(text) and (deleted := _tenants(text, deleted=True)):
        return _only("tenant", deleted, text, f"{_TENANT_COLUMNS} deleted_at")
    return services.tenants.get(operator(), tenant_called(text))


def tenant_id_called(text: str) -> UUID:
    """Return the id of the tenant as `tenant_called` does, or the text itself if it is an id.

    An id without a live tenant is returned too, because the log also has events of deleted tenants.
    """
    tenant_id = _as_id(text)
    return tenant_id if tenant_id and not _tenants(text) else tenant_called(text)


def connection_id_called(text: str) -> UUID:
    """Return the id of the connection as `connection_called` does, or the text itself if it is one.

    An id is not looked up, because the log also has events of deleted connections.
    """
    return _as_id(text) or connection_called(text).id


# An option's type. `--help` shows the function's name.
def account(text: str) -> str:
    """Accept an account's id, also as AWS's console shows it: 1234-5678-9012."""
    digits = text.replace("-", "")
    if not ACCOUNT_ID.fullmatch(digits):
        raise ValueError("must be the 12 digits of an AWS account.")
    return digits


def connection_called(text: str) -> Connection:
    """Return the connection with this id or role ARN, or the only one of an account or tenant.

    Raises ClickException unless exactly one connection matches.
    """
    in_arn, criteria = ACCOUNT_ID.search(text), None
    if connection_id := _as_id(text):
        criteria = ConnectionFilter(connection_id=connection_id)
    elif in_arn and text.startswith("arn:"):
        criteria = ConnectionFilter(account_id=in_arn[0], role_arn=text)
    else:
        with suppress(ValueError):
            criteria = ConnectionFilter(account_id=account(text))
    connections = _first(services.listing.list, criteria) if criteria else []
    if not connections:
        for tenant in _tenants(text):
            connections += _first(services.listing.list, ConnectionFilter(tenant_id=tenant.id))
    return _only("connection", connections, text, "id tenant.name status role_arn")


def key_called(text: str) -> ApiKey:
    """Return the API key with this id, with these first characters, or else with this name.

    Raises ClickException unless exactly one key matches.
    """
    condition: dict[str, object] = {"name": text}
    if key_id := _as_id(text):
        condition = {"id": key_id}
    elif digits := _DIGITS.fullmatch(text):
        condition = {"lookup": digits[1]}
    keys = services.api_keys.all_keys(**condition)
    return _only("key", keys, text, "id name tenant_id expires_at revoked_at")


ONE_TENANT = Lookup(tenant_called)
TENANT = click.argument("tenant_id", metavar="TENANT", type=ONE_TENANT)
tenant_option = partial(click.option, "--tenant", "tenant_id", type=ONE_TENANT)


def _as_id(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _tenants(text: str, *, deleted: bool = False) -> list[Tenant]:
    tenant_id = _as_id(text)
    if tenant_id is not None:
        by_id = TenantFilter(tenant_id=tenant_id, deleted=deleted)
        if tenants := _first(services.tenants.list, by_id):
            return tenants
    tenants = _first(services.tenants.list, TenantFilter(reference=text, deleted=deleted))
    if tenant_id is None:
        # The list has names that begin so, so a tenant of exactly this name may be on a later page
        for tenant in every(
            services.tenants.list, operator(), TenantFilter(name=text, deleted=deleted)
        ):
            if tenant.name_folded == folded(text) and tenant.reference != text:
                tenants.append(tenant)
    return tenants


def _first(fetch: Callable[..., Page[Thing]], criteria: Any) -> list[Thing]:
    return fetch(operator(), criteria, limit=_MOST, after=None).items


def _listed(things: list[Thing], columns: str) -> Iterator[str]:
    return table([row_of(thing, columns) for thing in things])


def _only(noun: str, things: list[Thing], text: str, columns: str) -> Thing:
    if not things:
        raise click.ClickException(f"There is no such {noun}.")
    if len(things) == 1:
        return things[0]
    message = [f"{text} could be one of these; give its id.", *_listed(things[:_MOST], columns)]
    if len(things) > _MOST:
        message.append(f"… and {len(things) - _MOST} more")
    raise click.ClickException("\n".join(message))
