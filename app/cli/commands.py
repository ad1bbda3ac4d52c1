"""Commands for the operator at the machine: `flask --app wsgi COMMAND --help`.

They need no API key: whoever can run them has the database already. What they change is in the audit log too.
"""

import getpass
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast
from uuid import UUID

import click
from alembic import command
from alembic.script import ScriptDirectory
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext

from app.access.api_keys import generate_key, is_live
from app.access.callers import Scope, from_bits
from app.access.families import Made
from app.audit.log import Actor
from app.aws.errors import Unavailable
from app.aws.templates import Published
from app.background.single_machine import Worker
from app.errors import AppError, NotFoundError, ValidationFailedError
from app.health.readiness import alembic_config, is_newer, revision
from app.services import Services
from app.store.database import now, unavailable
from app.store.models import ApiKey

_NOT_BOOTED = 3  # gunicorn starts a worker that ends with any other code again, and again


def register_commands(app: Flask) -> None:
    for command_or_group in (migrate, worker, templates, keys, registrations):
        app.cli.add_command(command_or_group)


def without_settings(problem: str) -> Flask:
    """The commands alone, so that `--help` works; one that needs the settings says what is wrong with them.

    That is where flask looks its commands up. Anywhere else, in gunicorn or in `flask run`, the process ends.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.parent is not None:
        click.echo(problem, err=True)
        sys.exit(_NOT_BOOTED)
    app = Flask("app", static_folder=None)
    app.config["PROBLEM"] = problem
    register_commands(app)
    return app


def _services() -> Services:
    if "deputy" not in current_app.extensions:
        raise click.ClickException(current_app.config["PROBLEM"])
    return cast("Services", current_app.extensions["deputy"])


@contextmanager
def _in_one_line(absent: str = "There is no such key.") -> Iterator[None]:
    """A refusal, or a database that is away, as one line for a person instead of a traceback."""
    try:
        yield
    except NotFoundError as error:
        raise click.ClickException(absent) from error
    except ValidationFailedError as error:
        problems = (f"{field}: {' '.join(said)}" for field, said in error.errors.items())
        raise click.ClickException("\n".join(problems)) from error
    except AppError as error:
        raise click.ClickException(error.detail) from error


def _operator() -> Actor:
    return Actor("operator", None, f"{getpass.getuser()} (command line)")


@click.command("migrate")
@with_appcontext
def migrate() -> None:
    """Bring the database's schema to this release's. Safe to repeat."""
    db = _services().db
    config = alembic_config(db)
    with _in_one_line(), unavailable():
        before = revision(db)
        if is_newer(before, ScriptDirectory.from_config(config)):
            raise click.ClickException(
                f"The database's schema is at {before}, which is a newer release's. Nothing was changed: run that release."
            )
        command.upgrade(config, "head")
        after = revision(db)
    click.echo(f"Nothing to do: {after}" if before == after else f"{before or 'empty'} → {after}")


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Do what is due in the background, on this machine, until Ctrl-C: prove connections.

    It needs no broker. Beyond one machine set DEPUTY_BROKER_URL and run: celery --app celery_app worker --beat
    """
    stop = threading.Event()
    work = Worker(_services(), stop)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    click.echo("The worker is running; Ctrl-C ends it.")
    if not work.run():
        raise click.ClickException("A part of the worker has ended, so it ends; its log says why. Start it again.")


templates = AppGroup("templates", help="The CloudFormation templates that customers launch.")
keys = AppGroup("keys", help="API keys: make, list and revoke.")
registrations = AppGroup("registrations", help="What customers' stacks may say of themselves.")


@templates.command("publish")
@click.option("--check", is_flag=True, help="Publish nothing; say what is missing or differs, and fail then.")
def publish(*, check: bool) -> None:
    """Render every permission set and upload it to TEMPLATE_BUCKET, under its content's hash.

    Run it with credentials that may put objects there, before the release that links to them. What is
    published already is never overwritten, so links that customers hold stay valid.

    --check needs no credentials: it reads the templates as customers do.
    """
    onboarding = _services().onboarding
    try:
        if check:
            _check_published(onboarding.published())
            return
        for url, new in onboarding.publish():
            click.echo(f"{'published' if new else 'there already'}  {url}")
    except Unavailable as error:
        raise click.ClickException(f"The bucket can't be {'read' if check else 'written to'}: {error}") from error


def _check_published(found: list[tuple[str, Published]]) -> None:
    for url, state in found:
        click.echo(f"{url}  {state}")
    if any(state is not Published.YES for _, state in found):
        raise click.ClickException("Not everything is published. Run: flask --app wsgi templates publish")


@keys.command("generate")
def generate() -> None:
    """Print a new full-strength key without storing it, for DEPUTY_BOOTSTRAP_KEY."""
    click.echo(generate_key())


@keys.command("bootstrap")
def bootstrap() -> None:
    """Install the key in DEPUTY_BOOTSTRAP_KEY (or …_FILE) with every scope. Safe to repeat."""
    text = _services().config.bootstrap_key
    if text is None:
        raise click.ClickException("DEPUTY_BOOTSTRAP_KEY is not set; make one with: flask --app wsgi keys generate")
    try:
        with _in_one_line():
            new = _services().access.install_key(_operator(), text, name="bootstrap admin")
    except ValueError as error:
        raise click.ClickException(f"DEPUTY_BOOTSTRAP_KEY: {error}") from error
    click.echo("The bootstrap key is installed." if new else "The bootstrap key is there already.")


def _line(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """The API's rule for names: `keys list` and the audit log show them on one line."""
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
@click.option("--tenant", "tenant_id", type=click.UUID, help="Confine it to this tenant.")
@click.option(
    "--permission-set", "permission_sets", multiple=True, help="Confine it to connections of this set; repeatable."
)
@click.option("--days", type=click.IntRange(1, 3650), help="Expire after so many days (default: never).")
def create(
    name: str, scopes: tuple[str, ...], tenant_id: UUID | None, permission_sets: tuple[str, ...], days: int | None
) -> None:
    """Make an API key and print it, once."""
    wanted = frozenset(Scope) if "all" in scopes else frozenset(Scope(scope) for scope in scopes)
    with _in_one_line(absent="There is no such tenant."):
        key, text = _services().access.issue_key(
            _operator(),
            name=name,
            scopes=wanted,
            tenant_id=tenant_id,
            expires_at=now() + timedelta(days=days) if days else None,
            permission_sets=list(permission_sets) or None,
        )
    click.echo(f"id   {key.id}\nkey  {text}\n\nThe key is shown this once; only its hash is kept.")


@keys.command("list")
def list_all() -> None:
    """List every API key, revoked and expired ones too."""
    with _in_one_line():
        found = _services().access.all_keys()
    width = max((len(key.name) for key in found), default=0)
    for key in found:
        scopes = from_bits(key.scope_bits)
        shown = "all" if scopes == frozenset(Scope) else " ".join(sorted(scopes))
        click.echo(f"{key.id}  {_state(key):<7}  {key.name:<{width}}  {key.tenant_id or 'every tenant'!s:<36}  {shown}")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "live" if is_live(key, now()) else "expired"


@keys.command("revoke")
@click.argument("key_id", type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask, even if the key has made others.")
def revoke(key_id: UUID, *, yes: bool) -> None:
    """Revoke an API key by its id, and the keys and onboarding links that it made.

    From then on, no request is served with any of them. To renew a key that is in order, replace it over the
    API (POST /v1/api-keys/<id>/replace): its successor inherits what it made.
    """
    with _in_one_line():
        made = _services().access.family_of(key_id)
        if made.keys or made.links:
            _show(made)
            if not yes:
                click.confirm("Revoke all of these?", abort=True)
        _services().access.revoke_any(_operator(), key_id)
    click.echo("Revoked.")


def _show(made: Made) -> None:
    click.echo(f"Revoked with it: {made.keys} live keys, {made.links} live onboarding links.")
    for key in made.some:
        click.echo(f"{key.id}  {key.name}  {key.tenant_id or 'every tenant'}")
    if made.keys > len(made.some):
        click.echo(f"… and {made.keys - len(made.some)} more keys")


@registrations.command("void")
@click.argument("tenant_id", type=click.UUID)
def void(tenant_id: UUID) -> None:
    """Void every registration token that a tenant was given so far, when one is in the wrong hands.

    Launch links and stacks hold the old token. A stack that is created with it fails, an organisation's stack for each
    new account too. Updating and deleting a stack still succeeds, and registers nothing; connections stay as they are.

    An onboarding link that is in the wrong hands needs no more than to be revoked: that voids the token on its page.
    Show customers their kit again (reload the page, send the new link). A stack or StackSet that is there takes the new
    token as its parameter RegistrationToken.
    """
    with _in_one_line(absent="There is no such tenant."):
        _services().tenants.void_registrations(_operator(), tenant_id)
    click.echo(
        "The registration tokens that this tenant was given so far are void. Kits must be shown again: what is launched"
        " with an old one fails.\n"
        "Stacks that run with an old token stay, and so do connections. They can be updated and deleted, and register"
        " nothing until they are given the new one as RegistrationToken."
    )
