"""Connections: customers' roles."""

import json
from dataclasses import asdict
from uuid import UUID

import click
from flask.cli import AppGroup

from app.cli.operator import in_one_line, operator, services

connections = AppGroup("connections", help="Connections: customers' roles.")


@connections.command("diagnose")
@click.argument("connection_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="The API's answer instead of a table.")
def diagnose(connection_id: UUID, *, as_json: bool) -> None:
    """Say why a connection does not work, and who can repair it. Changes nothing."""
    with in_one_line(absent="There is no such connection."):
        found = services().diagnoses.diagnose_any(operator(), connection_id)
    if as_json:
        click.echo(json.dumps(asdict(found), default=lambda at: at.isoformat(), indent=2))
        return
    click.echo(f"{found.conclusion}\n")
    width = max(len(step.name) for step in found.steps)
    for step in found.steps:
        click.echo(f"{step.outcome:<7}  {step.name:<{width}}  {step.detail}")
        if step.fix:
            click.echo(f"{'':<7}  {'':<{width}}  → {step.fix}")
    for title, gaps in (("missing", found.permissions.missing), ("unknown", found.permissions.unknown)):
        for gap in gaps:
            what = gap.policy or f"{gap.action} on {gap.resource}"
            click.echo(f"{title:<7}  {what} ({gap.cause})")
    for more in found.permissions.beyond or ():
        what = f"{more.action} on {more.resource}" if more.action else "its content is unknown"
        click.echo(f"{'beyond':<7}  {more.policy}: {what}")
