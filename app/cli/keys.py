"""API keys."""

from datetime import timedelta
from uuid import UUID

import click
from flask.cli import AppGroup

from app.access.api_keys import generate_key, is_live
from app.access.callers import Scope, from_bits
from app.access.families import FamilySummary
from app.cli.operator import in_one_line, operator, services
from app.clock import now
from app.store.models import ApiKey

keys = AppGroup("keys", help="API keys: create, list and revoke.")


@keys.command("generate")
def generate() -> None:
    """Print a key for DEPUTY_BOOTSTRAP_KEY; store nothing."""
    click.echo(generate_key())


@keys.command("bootstrap")
def bootstrap() -> None:
    """Install DEPUTY_BOOTSTRAP_KEY (or …_FILE) with every scope.

    Safe to repeat.
    """
    text = services().config.bootstrap_key
    if text is None:
        raise click.ClickException("DEPUTY_BOOTSTRAP_KEY is not set. Make a key with: flask --app wsgi keys generate")
    try:
        with in_one_line():
            new = services().api_keys.install_key(operator(), text, name="bootstrap admin")
    except ValueError as error:
        raise click.ClickException(f"DEPUTY_BOOTSTRAP_KEY: {error}") from error
    click.echo("The bootstrap key is installed." if new else "The bootstrap key is already installed.")


def _line(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """The API's rule for names, which `keys list` and the audit log show on one line."""
    if not 1 <= len(value) <= 200 or not value.isprintable() or not value.strip():
        raise click.BadParameter("must be one line of 1 to 200 printable characters.")
    return value


@keys.command("create")
@click.option("--name", required=True, callback=_line, help="Who or what will use it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([*(scope.value for scope in Scope), "all"]),
    help="What it may do; repeat for several.",
)
@click.option("--tenant", "tenant_id", type=click.UUID, help="Bind it to this tenant.")
@click.option(
    "--permission-set",
    "permission_sets",
    multiple=True,
    help="Issue only for connections of this set; repeat for several.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="Days until it expires (default: never).")
def create(
    name: str, scopes: tuple[str, ...], tenant_id: UUID | None, permission_sets: tuple[str, ...], days: int | None
) -> None:
    """Create an API key and print it, once."""
    wanted = frozenset(Scope) if "all" in scopes else frozenset(Scope(scope) for scope in scopes)
    with in_one_line(absent="There is no such tenant."):
        key, text = services().api_keys.create_key(
            operator(),
            name=name,
            scopes=wanted,
            tenant_id=tenant_id,
            expires_at=now() + timedelta(days=days) if days else None,
            permission_sets=list(permission_sets) or None,
        )
    click.echo(f"id   {key.id}\nkey  {text}\n\nThe key is shown this once. Deputy keeps only its hash.")


@keys.command("list")
def list_all() -> None:
    """List every API key, revoked and expired ones too. Times are UTC."""
    with in_one_line():
        found = services().api_keys.all_keys()
    width = max((len(key.name) for key in found), default=0)
    for key in found:
        scopes = from_bits(key.scope_bits)
        shown = "all" if scopes == frozenset(Scope) else " ".join(sorted(scopes))
        ends = f"{key.expires_at:until %Y-%m-%d %H:%M}" if key.expires_at else "no expiry"
        whose = str(key.tenant_id or "every tenant")
        click.echo(f"{key.id}  {_state(key):<7}  {ends:<22}  {key.name:<{width}}  {whose:<36}  {shown}")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "live" if is_live(key, now()) else "expired"


@keys.command("revoke")
@click.argument("key_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask, even if the key has made others.")
def revoke(key_id: UUID, *, yes: bool) -> None:
    """Revoke an API key and what it made.

    Requests with the key, or with a key or onboarding link that it made, are refused from then on. To renew a good key,
    replace it through the API (POST /v1/api-keys/<id>/replace): its successor inherits what it made.
    """
    with in_one_line():
        made = services().api_keys.family_of(key_id)
        if made.keys or made.links:
            _show(made)
            if not yes:
                click.confirm("Revoke all of these?", abort=True)
        services().api_keys.revoke_any(operator(), key_id)
    click.echo("Revoked.")


def _show(made: FamilySummary) -> None:
    click.echo(f"What it made goes with it: live keys {made.keys}, live onboarding links {made.links}.")
    width = max((len(key.name) for key in made.some), default=0)
    for key in made.some:
        click.echo(f"{key.id}  {key.name:<{width}}  {key.tenant_id or 'every tenant'}")
    if made.keys > len(made.some):
        click.echo(f"… and {made.keys - len(made.some)} more keys")
