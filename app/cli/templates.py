"""CloudFormation templates."""

import click
from flask.cli import AppGroup

from app.aws.errors import Unavailable
from app.aws.templates import Published
from app.cli.operator import services

templates = AppGroup("templates", help="The CloudFormation templates that customers launch.")


@templates.command("publish")
@click.option(
    "--check", is_flag=True, help="Publish nothing; list what is missing or differs, and fail if anything does."
)
def publish(*, check: bool) -> None:
    """Upload each permission set's templates to TEMPLATE_BUCKET.

    Run it before the release that links to them, with credentials that may put objects there. An object's name is its
    content's hash. Published objects are never overwritten, so the links that customers have stay valid.

    --check needs no credentials: it reads the templates as customers do.
    """
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
