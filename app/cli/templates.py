"""CloudFormation templates, and the permission sets in them."""

from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup

from app.aws.errors import Unavailable
from app.aws.templates import Published
from app.cli.operator import services
from app.config import Config, ConfigError
from app.permissions import permission_sets, set_files

templates = AppGroup("templates", help="The CloudFormation templates that customers launch.")


@templates.command("check")
def check_sets() -> None:
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
        raise click.ClickException(
            "\n".join(["The permission sets have mistakes; nothing was published.", *sorted(mistakes)])
        )


def _settings() -> tuple[Path | None, str | None, str]:
    """Of this application, or of one that such a mistake kept from being made."""
    made = current_app.extensions.get("deputy")
    try:
        config = made.config if made else Config.from_environment()
    except ConfigError as error:
        raise click.ClickException(current_app.config["PROBLEM"]) from error
    return config.permission_sets, config.default_permission_set, config.role_prefix


@templates.command("publish")
@click.option(
    "--check", is_flag=True, help="Publish nothing; list what is missing or differs, and fail if anything does."
)
@click.pass_context
def publish(context: click.Context, *, check: bool) -> None:
    """Upload each permission set's templates to TEMPLATE_BUCKET.

    Run it before the release that links to them, with credentials that may put objects there. An object's name is its
    content's hash. Published objects are never overwritten, so the links that customers have stay valid.

    --check needs no credentials: it reads the templates as customers do.
    """
    context.invoke(check_sets)
    onboarding = services().onboarding
    try:
        if check:
            _check_published(onboarding.published())
            return
        for url, new in onboarding.publish():
            click.echo(f"{'published' if new else 'there already':<13}  {url}")
    except Unavailable as error:
        raise click.ClickException(f"The bucket can't be {'read' if check else 'written to'}: {error}") from error


def _check_published(found: list[tuple[str, Published]]) -> None:
    for url, state in found:
        click.echo(f"{url}  {state}")
    if any(state is not Published.YES for _, state in found):
        raise click.ClickException("Not everything is published. Run: flask --app wsgi templates publish")
