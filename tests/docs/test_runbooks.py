"""docs/operations.md, "At three in the morning": the key that it has one make can do what it then says."""

import re
from pathlib import Path
from uuid import uuid4

from flask import Flask

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
RUNBOOKS = OPERATIONS.partition("\n## At three in the morning\n")[2].partition("\n## ")[0]


def scopes_used(app: Flask) -> set[str]:
    """Of every route that a runbook calls."""
    routes, used = app.url_map.bind(""), set()
    for options, path in re.findall(r'^api (.*?)"\$URL(/[^"?]*)', RUNBOOKS, re.MULTILINE):
        line = RUNBOOKS[RUNBOOKS.index(f"$URL{path}") :].partition("\n")[0]
        method = "DELETE" if "-X DELETE" in options else "POST" if "-X POST" in options or " -d " in line else "GET"
        endpoint, _ = routes.match(re.sub(r"\$[A-Z]+", str(uuid4()), path), method=method)
        used.add(app.view_functions[endpoint]._apidoc["scope"].value)
    return used


def test_the_recommended_key_has_the_scopes_that_the_runbooks_use_and_no_other(app: Flask):
    recommended = RUNBOOKS.partition("**No key at hand.**")[2].partition("```sh\n")[2].partition("```")[0]
    assert set(re.findall(r"--scope (\S+)", recommended)) == scopes_used(app)
    assert "tenants:read" in recommended
