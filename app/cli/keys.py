"""API keys."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from app.cli.commands import Lookup, Noun, Row, ask, operator, row_of, services, table, text
from app.cli.names import key_called, tenant_option
from app.clock import now
from app.errors import NotFoundError
from app.identity.api_keys import GRACE_SECONDS, GRACE_SECONDS_MAX
from app.identity.family_revocation import FamilySummary
from app.identity.key_text import generate_key
from app.identity.principals import has_expired
from app.identity.scopes import ALL_SCOPES, MAKES_KEYS, Scope, from_bits
from app.store.models import ApiKey

noun = Noun(
    "keys", help="API keys. KEY is an id, the first 20 characters of the key, or else a name."
)
_KEY = click.argument("key", type=Lookup(key_called))
_SCOPES = {scope.value: frozenset({scope}) for scope in Scope} | {"all": ALL_SCOPES}


def _row(key: ApiKey) -> Row:
    row = row_of(
        key,
        "id expires_at name tenant_id created_at last_used_at made_by replaced_by permission_sets",
    )
    row["state"] = "expired" if has_expired(key.expires_at) else "live"
    if key.revoked_at is not None:
        row["state"] = "revoked"
    scopes = from_bits(key.scope_bits)
    row["scopes"] = ["all"] if scopes == ALL_SCOPES else sorted(scopes)
    row["may_give"] = sorted(from_bits(key.may_give_bits)) or None
    return row


@noun.verb()
def generate() -> str:
    """Print a key for DEPUTY_BOOTSTRAP_KEY; store nothing."""
    return generate_key()


@noun.verb(changes=True)
def bootstrap() -> str:
    """Install DEPUTY_BOOTSTRAP_KEY (or …_FILE).

    The key gets every scope but keys:delegate. Safe to repeat.
    """
    key = services.config.service.bootstrap_key
    if key is None:
        raise click.ClickException(
            "DEPUTY_BOOTSTRAP_KEY is not set. Make a key with: flask --app wsgi keys generate"
        )
    try:
        new = services.api_keys.install_key(operator(), key, name="bootstrap admin")
    except ValueError as error:
        raise click.ClickException(f"DEPUTY_BOOTSTRAP_KEY: {error}") from error
    return "The bootstrap key is installed." if new else "The bootstrap key is already installed."


@noun.verb("--name worker --scope credentials:issue --tenant acme --days 90", changes=True)
@click.option("--name", required=True, type=text, help="Who or what will use it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([*_SCOPES]),
    help="What it may do; repeat for several.",
)
@click.option(
    "--may-give",
    multiple=True,
    type=click.Choice(sorted(map(str, set(Scope) - MAKES_KEYS))),
    help="With --scope keys:delegate: a scope of the keys that it makes; repeat for several.",
)
@tenant_option(help="Bind it to this tenant: its id, reference or name.")
@click.option(
    "--permission-set",
    "permission_sets",
    multiple=True,
    help="Issue only for connections of this set; repeat for several.",
)
@click.option(
    "--days", type=click.IntRange(1, 3650), help="Days until it expires (default: never)."
)
def create(
    scopes: tuple[str, ...],
    may_give: tuple[str, ...],
    permission_sets: tuple[str, ...],
    days: int | None,
    **options: Any,
) -> Row:
    """Create an API key and print it, once.

    `all` is every scope but keys:delegate. For 24 hours after it has made a tenant, a key with
    keys:delegate can make keys for that tenant, with the scopes of --may-give. It needs
    tenants:create too.
    """
    key, secret = services.api_keys.create_key(
        operator(),
        scopes=frozenset(scope for name in scopes for scope in _SCOPES[name]),
        may_give=frozenset(map(Scope, may_give)),
        expires_at=now() + timedelta(days=days) if days else None,
        permission_sets=list(permission_sets) or None,
        **options,
    )
    return _show_once(key, secret)


def _show_once(key: ApiKey, secret: str) -> Row:
    # With the id, so that a key that could not be printed can be revoked
    click.echo(f"The key {key.id} is shown this once. Deputy keeps only its hash.", err=True)
    return {"id": key.id, "key": secret}


@noun.verb(columns="id state expires_at last_used_at name tenant_id scopes may_give")
@tenant_option(help="Those that are bound to this tenant: its id, reference or name.")
def list_command(tenant_id: UUID | None) -> list[Row]:
    """List every API key, revoked and expired ones too. Times are UTC.

    A revoked key is shown as `revoked`, even if it had expired before. The keys and links that it
    made were revoked with it. The keys and links of an expired key work until it is revoked.

    A key without a tenant is for every tenant. The time of a key's last use is exact to the hour,
    and appears a minute later.
    """
    return [*map(_row, services.api_keys.all_keys(tenant_id=tenant_id))]


@noun.verb("dpk_0123456789abcdef")
@_KEY
def show(key: ApiKey) -> Row:
    """Show an API key, and what is revoked with it."""
    family = services.api_keys.family_of(key)
    return _row(key) | {"made": row_of(family, "keys links endpoints registrations")}


@noun.verb("worker --grace 3600", changes=True)
@_KEY
@click.option(
    "--grace",
    type=click.IntRange(0, GRACE_SECONDS_MAX),
    default=GRACE_SECONDS,
    show_default=True,
    help="Seconds for which the old key keeps working.",
)
def replace(key: ApiKey, grace: int) -> Row:
    """Replace an API key by a successor and print that, once.

    The successor has the same name, scopes, tenant and permission sets. It inherits the keys and
    links that the old key made, which go on working.
    """
    successor, family, secret = services.api_keys.replace_key(
        operator(), key.id, grace_seconds=grace
    )
    return _show_once(successor, secret) | {"inherited": row_of(family, "keys links")}


@noun.verb("dpk_0123456789abcdef", changes=True)
@_KEY
@click.option("--yes", is_flag=True, help="Do not ask, even if the key has made others.")
@click.option(
    "--void-registrations",
    is_flag=True,
    help=(
        "Void the registration tokens that the key could read: its tenant's; an unbound key's: all"
        " tenants'."
    ),
)
def revoke(key: ApiKey, *, yes: bool, void_registrations: bool) -> str:
    """Revoke an API key, with the keys and links that it made.

    Requests with the key, or with a key or onboarding link that it made, are refused from then on.
    Webhook endpoints whose URL or secret one of these keys set are disabled.
    To renew a key, replace it instead (keys replace): its successor inherits the keys and links
    that it made.

    With --void-registrations, customers need new launch links (registrations void). The option also
    works for a key that is already revoked.
    """
    if key.revoked_at is not None:
        if void_registrations:
            return _void_registrations(key)
        raise click.ClickException("This key is revoked already.")
    family = services.api_keys.family_of(key)
    if family.keys or family.links or family.endpoints:
        click.echo("\n".join(_describe_family(family)), err=True)
        if not yes:
            ask("Revoke all of these?")
    services.api_keys.revoke_key(operator(), key.id)
    return f"Revoked. {_void_registrations(key)}" if void_registrations else "Revoked."


def _describe_family(family: FamilySummary) -> Iterator[str]:
    yield (
        f"What it made goes with it: live keys {family.keys}, live onboarding links {family.links},"
        f" webhook endpoints {family.endpoints}."
    )
    if family.some:
        yield from table([row_of(key, "id name tenant_id") for key in family.some])
    if (more := family.keys - len(family.some)) > 0:
        yield f"… and {more} more keys"


def _void_registrations(key: ApiKey) -> str:
    """Void the registration tokens that the key could read, one tenant at a time.

    It runs after the revocation, which nothing may delay.
    """
    voided = 0
    for tenant_id in services.api_keys.readable_registrations(key):
        with suppress(NotFoundError):  # deleted meanwhile
            services.tenants.void_registrations(operator(), tenant_id)
            voided += 1
    return f"The registration tokens of {voided} tenant{'' if voided == 1 else 's'} are void."
