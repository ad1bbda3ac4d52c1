"""API keys."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import click

from app.cli.finding import key_called, tenant_called
from app.cli.operator import Noun, Row, a_line, columns, operator, row_of, services, table
from app.clock import now
from app.errors import NotFoundError
from app.identity.api_keys import GRACE_SECONDS, GRACE_SECONDS_MAX, generate_key
from app.identity.principals import has_expired
from app.identity.scopes import ALL_SCOPES, MAKES_KEYS, Scope, from_bits
from app.store.models import ApiKey

noun = Noun(
    "keys", help="API keys. KEY is an id, the first 20 characters of the key, or else a name."
)
_KEY = click.argument("key")
_SCOPES = click.Choice([*(scope.value for scope in Scope), "all"])
_MAY_GIVE = click.Choice([scope.value for scope in Scope if scope not in MAKES_KEYS])


def _row(key: ApiKey) -> dict[str, Any]:
    scopes = from_bits(key.scope_bits)
    return {
        "id": key.id,
        "state": (
            "revoked"
            if key.revoked_at is not None
            else "expired"
            if has_expired(key.expires_at)
            else "live"
        ),
        **row_of(
            key,
            "expires_at",
            "name",
            "tenant_id",
            "created_at",
            "last_used_at",
            "made_by",
            "replaced_by",
            "permission_sets",
        ),
        "scopes": ["all"] if scopes == ALL_SCOPES else sorted(scopes),
        "may_give": sorted(from_bits(key.may_give_bits)) or None,
    }


@noun.verb("generate")
def generate() -> str:
    """Print a key for DEPUTY_BOOTSTRAP_KEY; store nothing."""
    return generate_key()


@noun.verb("bootstrap")
def bootstrap() -> str:
    """Install DEPUTY_BOOTSTRAP_KEY (or …_FILE) with every scope.

    Safe to repeat.
    """
    text = services().config.service.bootstrap_key
    if text is None:
        raise click.ClickException(
            "DEPUTY_BOOTSTRAP_KEY is not set. Make a key with: flask --app wsgi keys generate"
        )
    try:
        new = services().api_keys.install_key(operator(), text, name="bootstrap admin")
    except ValueError as error:
        raise click.ClickException(f"DEPUTY_BOOTSTRAP_KEY: {error}") from error
    return "The bootstrap key is installed." if new else "The bootstrap key is already installed."


@noun.verb("create", "--name worker --scope credentials:issue --tenant acme --days 90")
@click.option("--name", required=True, callback=a_line, help="Who or what will use it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=_SCOPES,
    help="What it may do; repeat for several.",
)
@click.option(
    "--may-give",
    multiple=True,
    type=_MAY_GIVE,
    help="With --scope keys:delegate: a scope of the keys that it makes; repeat for several.",
)
@click.option("--tenant", help="Bind it to this tenant: its id, reference or name.")
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
    name: str,
    *,
    scopes: tuple[str, ...],
    may_give: tuple[str, ...],
    tenant: str | None,
    permission_sets: tuple[str, ...],
    days: int | None,
) -> Row:
    """Create an API key and print it, once.

    `all` is every scope but keys:delegate. A key with keys:delegate makes keys with the scopes of
    --may-give, for tenants that it has made itself, for 24 hours. It needs tenants:write too.
    """
    key, text = services().api_keys.create_key(
        operator(),
        name=name,
        scopes=frozenset(map(Scope, set(scopes) - {"all"}))
        | (ALL_SCOPES if "all" in scopes else frozenset()),
        may_give=frozenset(map(Scope, may_give)),
        tenant_id=tenant_called(tenant).id if tenant is not None else None,
        expires_at=now() + timedelta(days=days) if days else None,
        permission_sets=list(permission_sets) or None,
    )
    return _shown_once(key, text)


def _shown_once(key: ApiKey, text: str) -> Row:
    click.echo("The key is shown this once. Deputy keeps only its hash.", err=True)
    return {"id": key.id, "key": text}


@noun.verb(
    "list",
    text=columns(
        "id", "state", "expires_at", "last_used_at", "name", "tenant_id", "scopes", "may_give"
    ),
)
@click.option("--tenant", help="Those that are bound to this tenant: its id, reference or name.")
def list_all(tenant: str | None) -> list[Row]:
    """List every API key, revoked and expired ones too. Times are UTC.

    A key without a tenant is for every tenant. A key's last use is known to the hour, a minute
    later.
    """
    bound_to = tenant_called(tenant).id if tenant is not None else None
    return [
        _row(key) for key in services().api_keys.all_keys() if bound_to in {None, key.tenant_id}
    ]


@noun.verb("show", "dpk_0123456789abcdef")
@_KEY
def show(key: str) -> Row:
    """Show an API key, and what is revoked with it."""
    found = key_called(key)
    return _row(found) | {
        "made": row_of(services().api_keys.family_of(found), "keys", "links", "registrations")
    }


@noun.verb("replace", "worker --grace 3600")
@_KEY
@click.option(
    "--grace",
    type=click.IntRange(0, GRACE_SECONDS_MAX),
    default=GRACE_SECONDS,
    show_default=True,
    help="Seconds for which the old key keeps working.",
)
def replace(key: str, grace: int) -> Row:
    """Replace an API key by a successor and print that, once.

    The successor has the same name, scopes and bounds. It inherits the keys and links that the old
    key made, which go on working.
    """
    successor, made, text = services().api_keys.replace_key(
        operator(), key_called(key).id, grace_seconds=grace
    )
    return {**_shown_once(successor, text), "inherited": row_of(made, "keys", "links")}


@noun.verb("revoke", "dpk_0123456789abcdef")
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
def revoke(key: str, *, yes: bool, void_registrations: bool) -> str:
    """Revoke an API key, with the keys and links that it made.

    Requests with the key, or with a key or onboarding link that it made, are refused from then on.
    To renew a good key, replace it (keys replace): its successor inherits the keys and links that
    it made.

    With --void-registrations, customers need new launch links (registrations void). It works for a
    revoked key too.
    """
    found = key_called(key)
    if found.revoked_at is not None:
        if void_registrations:
            return _void_registrations(found)
        raise click.ClickException("This key is revoked already.")
    made = services().api_keys.family_of(found)
    if made.keys or made.links:
        more = (
            [f"… and {made.keys - len(made.some)} more keys"] if made.keys > len(made.some) else []
        )
        goes = (
            f"What it made goes with it: live keys {made.keys}, live onboarding links {made.links}."
        )
        some = table([row_of(one, "id", "name", "tenant_id") for one in made.some])
        click.echo("\n".join([goes, *(some if made.some else []), *more]), err=True)
        if not yes:
            click.confirm("Revoke all of these?", abort=True, err=True)
    services().api_keys.revoke_key(operator(), found.id)
    return f"Revoked. {_void_registrations(found)}" if void_registrations else "Revoked."


def _void_registrations(key: ApiKey) -> str:
    """Void the registration tokens that the key could read, one tenant at a time.

    It runs after the revocation, which nothing may delay.
    """
    voided = 0
    for tenant_id in services().api_keys.readable_registrations(key):
        with suppress(NotFoundError):  # deleted meanwhile
            services().tenants.void_registrations(operator(), tenant_id)
            voided += 1
    return f"The registration tokens of {voided} tenant{'' if voided == 1 else 's'} are void."
