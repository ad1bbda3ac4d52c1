"""Check the commands in the documents, and the key that docs/runbooks.md recommends for its
runbooks.
"""

import re
import shlex
from pathlib import Path
from uuid import uuid4

import click

from app.cli import COMMANDS
from tests.docs.test_documents import DOCUMENTS

DOCS = Path(__file__).parents[2] / "docs"
INDEX, _, RUNBOOKS = (DOCS / "runbooks.md").read_text().partition("\n## ")[2].partition("\n## ")
RUNBOOKS = f"\n## {RUNBOOKS}"


def scopes_used(app):
    """Of every route that a runbook calls."""
    routes, used = app.url_map.bind(""), set()
    for options, path in re.findall(r'^api (.*?)"\$DEPUTY_URL(/[^"?]*)', RUNBOOKS, re.MULTILINE):
        line = RUNBOOKS[RUNBOOKS.index(f"$DEPUTY_URL{path}") :].partition("\n")[0]
        method = "POST" if "-X POST" in options or " -d " in line else "GET"
        if "-X DELETE" in options:
            method = "DELETE"
        endpoint, _ = routes.match(re.sub(r"\$[A-Z]+", str(uuid4()), path), method=method)
        used.add(app.view_functions[endpoint].scopes[0].value)
    return used


def test_the_recommended_key_has_the_scopes_that_the_runbooks_use_and_no_other(app):
    section = RUNBOOKS.partition("\n## No key at hand\n")[2]
    recommended = section.partition("```sh\n")[2].partition("```")[0]
    assert set(re.findall(r"--scope (\S+)", recommended)) == scopes_used(app)
    assert "tenants:read" in recommended


def anchor(heading):
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_index_at_the_top_has_every_runbook():
    """test_documents.py follows its links."""
    assert INDEX.startswith("What to do when")
    runbooks = {anchor(heading) for heading in re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)}
    assert len(runbooks) > 20
    assert runbooks <= set(re.findall(r"\]\(#([^)]+)\)", INDEX))


ALL = click.Group("flask", commands={command.name: command for command in COMMANDS})


def examples():
    """Where each stands, and its words: in documents, and in what --help shows."""
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n", " ")
        for found in re.findall(r"flask --app wsgi ([a-z][^\n`]*)", text):
            yield document.name, found.partition("; ")[0]
    for command in COMMANDS:
        for verb in (command, *getattr(command, "commands", {}).values()):
            for found in re.findall(r"flask --app wsgi (.*)", verb.epilog or ""):
                yield f"--help of {verb.name}", found


def mistake_in(example):
    """Return what click says against these words. Without arguments, a command is only named."""
    words, command = shlex.split(example, comments=True), ALL
    context = click.Context(ALL)
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        command = command.get_command(context, name)
        if command is None:
            return f"there is no {name}"
    try:
        if words and words != ["--help"]:
            command.make_context(command.name, words)
    except click.UsageError as error:
        return error.format_message()
    return None


def test_each_command_that_is_shown_can_be_given():
    shown = list(examples())
    assert sum(place == "runbooks.md" for place, _ in shown) > 30
    assert sum(place.startswith("--help") for place, _ in shown) > 30
    assert [(*one, why) for one in shown if (why := mistake_in(one[1]))] == []
