"""CloudFormation templates, and the permission sets in them."""

import click
from flask import current_app

from app.aws.errors import Unavailable
from app.aws.template_bucket import Published
from app.cli.commands import Noun, Row, services
from app.config import ConfigError, TemplateConfig
from app.onboarding.publication import Publication
from app.permissions import permission_sets, set_files

_WHO_PUBLISHES = (
    "Publishing takes the pipeline's credentials, with the policy in broker.yaml's output"
    " TemplatePublisherPolicyArn. Beside make run: make publish"
)
noun = Noun("templates", help="The CloudFormation templates that customers launch.")


@noun.verb()
def check() -> str:
    """Check the files of the permission sets.

    Lists every mistake in the folder with its file and its field. Needs neither AWS nor the
    database. `publish` makes the same check before it publishes anything.
    """
    _ensure_good(_settings())
    return "The permission sets have no mistakes."


def _ensure_good(config: TemplateConfig) -> None:
    """Raise ClickException that lists every mistake of the permission sets."""
    try:
        # Imported lazily: other commands need not load AWS's list of actions
        from app.permissions import action_checks  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error

    folder = config.vendor.permission_sets
    files = set_files.read(folder or permission_sets.FOLDER)
    mistakes = permission_sets.mistakes_in(
        files, folder, config.vendor.default_permission_set, config.aws.role_prefix
    )
    for file in files:
        mistakes += action_checks.mistakes_in(file)
    if mistakes:
        raise click.ClickException(
            "\n".join(["The permission sets have mistakes:", *sorted(mistakes)])
        )


def _settings() -> TemplateConfig:
    """Return the settings that templates are rendered from.

    Other settings may be wrong or missing.
    """
    try:
        if "deputy" in current_app.extensions:
            return services.config
        return TemplateConfig.from_environment()
    except ConfigError as error:
        raise click.ClickException(
            f"Templates can't be rendered with these settings:\n{error}"
        ) from error


@noun.verb("--check", text=lambda rows: map(_line, rows))
@click.option(
    "--check",
    is_flag=True,
    help="Publish nothing; list what is missing or differs, and fail if anything does.",
)
def publish(*, check: bool) -> list[Row]:
    """Upload the permission sets' templates to the bucket.

    Run it before the release that links to them, with credentials that may list the bucket and put
    objects there. It needs AWS_REGION, DEPUTY_BROKER_PRINCIPAL_ARN, DEPUTY_VENDOR_NAME and
    DEPUTY_TEMPLATE_BUCKET. If the service has DEPUTY_VENDOR_NAME_ASCII, DEPUTY_PERMISSION_SETS,
    DEPUTY_DEFAULT_PERMISSION_SET, DEPUTY_ROLE_PREFIX or DEPUTY_MAX_SESSION_SECONDS, the command
    needs them too. It needs neither the database nor the secret keys.

    A template's name is its content's hash. Published objects are never overwritten, so the links
    that customers have stay valid. The bucket also gets a document for each version, with the
    permissions that it asks for. So a set that has changed needs a higher version. If the bucket
    has other content under a name, the command fails.

    --check needs no credentials: it reads the templates as customers do.
    """
    config = _settings()
    if not check:
        _ensure_good(config)
    publication = Publication(config)
    try:
        states = publication.published() if check else publication.publish()
    except Unavailable as error:
        problem = f"The bucket can't be {'read' if check else 'written to'}: {error}"
        if "AccessDenied" in problem:  # the broker's credentials, for example
            problem += f"\n{_WHO_PUBLISHES}"
        raise click.ClickException(problem) from error
    finally:
        for sentence in sorted(publication.ignored):
            click.echo(f"Warning: {sentence}", err=True)
    rows: list[Row] = [{"state": state, "url": url} for url, state in states]
    if check and any(row["state"] is not Published.YES for row in rows):
        message = "Not everything is published. Run: flask --app wsgi templates publish"
        raise click.ClickException("\n".join([message, *map(_line, rows)]))
    return rows


def _line(row: Row) -> str:
    return f"{row['state']:<13}  {row['url']}"
