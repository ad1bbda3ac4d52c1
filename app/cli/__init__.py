"""Commands for the operator: `flask --app wsgi COMMAND --help`.

They need no API key, because they run where the database's password is. Their changes are in the
audit log too.
"""

from flask import Flask

from app.cli import (
    audit,
    connections,
    customers,
    deployment,
    keys,
    onboarding,
    rotation,
    templates,
    tenants,
    webhooks,
)

COMMANDS = (
    deployment.version,
    deployment.doctor,
    deployment.migrate,
    deployment.after_restore,
    deployment.worker,
    tenants.noun,
    customers.noun,
    connections.noun,
    keys.noun,
    onboarding.links,
    rotation.noun,
    audit.noun,
    templates.noun,
    onboarding.registrations,
    webhooks.noun,
)


def register_commands(app: Flask) -> None:
    for command in COMMANDS:
        app.cli.add_command(command)
