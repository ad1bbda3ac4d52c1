"""The operator at the command line."""

import json
import shlex
from typing import Any

import pytest

from tests.support.cast import path_of


class Cli:
    """`cli("tenants show acme")` is `flask --app wsgi tenants show acme --json`, read."""

    def __init__(self, app):
        self._runner = app.test_cli_runner()

    def raw(self, line, *words, answer=None):
        return self._runner.invoke(args=[*shlex.split(line), *words], input=answer)

    def text(self, line, *words, fails=0, answer=None):
        done = self.raw(line, *words, answer=answer)
        assert done.exit_code == fails, done.output
        assert "Traceback" not in done.output
        return done.output

    def refused(self, line, *words):
        return self.text(line, *words, fails=1)

    def __call__(self, line, *words):
        done = self.raw(line, *words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def cli(app) -> Cli:
    return Cli(app)


@pytest.fixture
def acme(world) -> dict[str, Any]:
    """A tenant with a reference and a verified connection."""
    tenant = world.tenant("Acme Ltd")
    reference = f"ref-{tenant['id'][-12:]}"
    world.admin("PATCH", f"/v1/tenants/{tenant['id']}", {"reference": reference})
    connection = world.connection(tenant)
    more = {"connection": connection, "path": path_of(connection, "/credentials")}
    return {**tenant, "reference": reference, **more}
