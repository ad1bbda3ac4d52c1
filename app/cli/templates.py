"""CloudFormation templates, and the permission sets in them."""

from pathlib import Path

import click
from flask import current_app

from app.aws.errors import Unavailable
from app.aws.templates import Published
from app.cli.operator import Noun, Row, services
from app.config import Config, ConfigError
from app.errors import AppError
from app.permissions import permission_sets, set_files
from app.store.revisions import KNOWN, is_newer, revision

noun = Noun("templates", help="The CloudFormation templates that customers launch.")


@noun.verb("check")
def check_sets() -> str:
    """Check the files of the permission sets.

    Lists every mistake of the folder with its file and its field, and needs neither AWS nor the database. `publish`
    does the same before it publishes anything.
    """
    from app.permissions import action_data  # noqa: PLC0415  AWS's list of actions: other commands need not load it

    folder, default, role_prefix = _settings()
    found = set_files.read(folder or permission_sets.FOLDER)
    mistakes = permission_sets.mistakes_in(found, folder, default, role_prefix)
    mistakes += [line for file in found for line in action_data.mistakes_in(file)]
    if mistakes:
        said = "The permission sets have mistakes; nothing was published."
        raise click.ClickException("\n".join([said, *sorted(mistakes)]))
    return "The permission sets have no mistakes."


def _settings() -> tuple[Path | None, str | None, str]:
    """Of this application, or of one that such a mistake kept from being made."""
    made = current_app.extensions.get("deputy")
    try:
        config = made.config if made else Config.from_environment()
    except ConfigError as error:
        raise click.ClickException(current_app.config["PROBLEM"]) from error
    return config.permission_sets, config.default_permission_set, config.role_prefix


@noun.verb("publish", "--check", text=lambda rows: map(_line, rows))
@click.option(
    "--check", is_flag=True, help="Publish nothing; list what is missing or differs, and fail if anything does."
)
def publish(*, check: bool) -> list[Row]:
    """Upload each permission set's templates to TEMPLATE_BUCKET.

    Run it before the release that links to them, with credentials that may put objects there. An object's name is its
    content's hash. Published objects are never overwritten, so the links that customers have stay valid. If the bucket
    has other content under such a name, the command fails. The database records what is asked for under each version: a
    set that has changed needs a higher one.

    --check needs no credentials: it reads the templates as customers do.
    """
    check_sets()
    if not check:
        _ensure_migrated()
    onboarding = services().onboarding
    try:
        done = onboarding.published() if check else onboarding.publish()
    except (
        AppError
    ) as error:  # the database is away, a set has changed under its version, or the bucket has other content
        raise click.ClickException(error.detail) from error
    except Unavailable as error:
        raise click.ClickException(f"The bucket can't be {'read' if check else 'written to'}: {error}") from error
    found: list[Row] = [{"state": state, "url": url} for url, state in done]
    if check and any(one["state"] is not Published.YES for one in found):
        said = "Not everything is published. Run: flask --app wsgi templates publish"
        raise click.ClickException("\n".join([said, *map(_line, found)]))
    return found


def _ensure_migrated() -> None:
    """Raises ClickException where the database could not record what is published."""
    try:
        at = revision(services().db)
    except AppError as error:
        raise click.ClickException(f"Nothing was published. {error.detail}") from error
    if at != KNOWN[-1] and not is_newer(at):
        said = "Nothing was published: the database's schema is not this release's. Run: flask --app wsgi migrate"
        raise click.ClickException(said)


def _line(row: Row) -> str:
    return f"{row['state']:<13}  {row['url']}"
