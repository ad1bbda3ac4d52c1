"""The operator's commands, against a real database: what they print, what they change, and what
they leave on record.
"""

import getpass
import json
import logging
import re
import shlex
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import select

from app import VERSION
from app.cli import commands as cli
from app.clock import now
from app.errors import UnauthenticatedError
from app.factory import create_app
from app.health.checks import Status
from app.identity.api_keys import ApiKeys, generate_key
from app.identity.scopes import ALL_SCOPES, Scope
from app.ids import new_id
from app.store.database import SYSTEM, Database
from app.store.migrations import alembic_config
from app.store.models import ApiKey, AuditEvent, Tenant
from app.store.revisions import KNOWN, revision
from tests.attacks.evidence import on_sqlite
from tests.conftest import make_config
from tests.support.databases import empty_database

ROOT = Path(__file__).parents[2]
KEY = r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"


class Operator:
    """Somebody at the machine; `run("keys list")` is `flask --app wsgi keys list`."""

    def __init__(self, url: str, **settings: object) -> None:
        self.app = create_app(make_config(url, **settings))
        self.api_keys: ApiKeys = self.app.extensions["deputy"].api_keys
        self.db: Database = self.app.extensions["deputy"].db

    def run(self, line: str, *words: str, fails: int = 0) -> str:
        done = self.app.test_cli_runner().invoke(args=[*shlex.split(line), *words])
        assert done.exit_code == fails, done.output
        assert "Traceback" not in done.output
        return done.output

    def key(self, text: str) -> ApiKey | None:
        with self.db.read() as db:
            return db.scalars(select(ApiKey).where(ApiKey.lookup == text[4:20])).one_or_none()

    def events(self, key: ApiKey) -> list[AuditEvent]:
        """What is on record about a key, oldest first."""
        with self.db.read() as db:
            query = (
                select(AuditEvent)
                .where(AuditEvent.action.like("api_key.%"))
                .order_by(AuditEvent.id)
            )
            return [e for e in db.scalars(query) if e.details.get("api_key_id") == str(key.id)]

    def works(self, text: str) -> bool:
        try:
            self.api_keys.authenticate(text, None)
        except UnauthenticatedError:
            return False
        return True


@pytest.fixture(scope="module")
def operator(database_url):
    operator = Operator(database_url)
    yield operator
    operator.db.engine.dispose()


@pytest.fixture
def with_bootstrap(database_url):
    """`with_bootstrap(text)`: an operator whose settings hold this bootstrap key."""
    made = []

    def make(text: str) -> Operator:
        made.append(Operator(database_url, bootstrap_key=text))
        return made[-1]

    yield make
    for operator in made:
        operator.db.engine.dispose()


def made_by(output: str) -> tuple[str, str]:
    """The id and the text that `keys create` prints."""
    found = re.search(rf"^id   ([0-9a-f-]{{36}})\nkey  ({KEY})$", output, re.MULTILINE)
    assert found, output
    return found[1], found[2]


# --- help ---


@on_sqlite
def test_help_says_what_a_command_does(operator):
    for line, texts in {
        "": "version|migrate|tenants|connections|links|rotation|audit|registrations",
        "migrate": "Bring the database's schema to this release's|Safe to repeat",
        "templates publish": "TEMPLATE_BUCKET|never overwritten",
        "keys": "bootstrap|create|generate|list|revoke",
        "keys generate": "DEPUTY_BOOTSTRAP_KEY",
        "keys bootstrap": "DEPUTY_BOOTSTRAP_KEY|Safe to repeat",
        "keys create": "--tenant|--days|--permission-set|credentials:issue|all",
        "keys list": "revoked and expired",
        "keys revoke": "KEY|are refused from then on|onboarding link that it made|--yes",
        "registrations void": "TENANT|may have leaked|kit again|register nothing",
    }.items():
        output = re.sub(r"\s+", " ", operator.run(line, "--help"))
        assert [text for text in texts.split("|") if text not in output] == [], line


def every_verb() -> Iterator[tuple[str, click.Command]]:
    """Each command that does something, with its words."""
    for command in cli.COMMANDS:
        verbs = command.commands if isinstance(command, click.Group) else {}
        yield from ((f"{command.name} {name}", verb) for name, verb in verbs.items())
        if not verbs:
            yield str(command.name), command


def test_every_command_has_a_help_text_and_an_example():
    """The help text's first sentence fits into the list of commands."""
    for command in (*cli.COMMANDS, *(verb for _, verb in every_verb())):
        assert command.help, command.name
        assert not command.get_short_help_str(60).endswith("..."), command.name
    for words, verb in every_verb():
        assert f"flask --app wsgi {words}" in (verb.epilog or ""), words


def test_every_command_that_answers_does_so_in_json_too():
    without = {
        words
        for words, verb in every_verb()
        if not any("--json" in option.opts for option in verb.params)
    }
    assert without == {"worker"}, "which runs until it is stopped"


def every_command(app: Flask) -> Iterator[list[str]]:
    """The words of each group and each command."""
    for name, found in app.cli.commands.items():
        yield [name]
        yield from ([name, inner] for inner in getattr(found, "commands", {}))


def test_help_needs_no_settings_at_any_level():
    with click.Context(click.Group("flask")):
        app = cli.without_settings("these settings are bad")
    for words in every_command(app):
        done = app.test_cli_runner().invoke(args=[*words, "--help"])
        assert (done.exit_code, done.output[:6]) == (0, "Usage:"), words
    for words in (["migrate"], ["worker"], ["keys", "list"], ["keys", "bootstrap"]):
        done = app.test_cli_runner().invoke(args=words)
        assert (done.exit_code, done.output) == (1, "Error: these settings are bad\n"), words
    done = app.test_cli_runner().invoke(
        args=["templates", "publish"], env={"DEPUTY_VENDOR_NAME": "Acme"}
    )
    said, *missing = done.output.splitlines()
    assert (done.exit_code, said) == (1, "Error: Templates can't be rendered with these settings:")
    assert [line.partition(":")[0] for line in missing if line.startswith("DEPUTY_")] == [
        "DEPUTY_BROKER_PRINCIPAL_ARN",
        "DEPUTY_TEMPLATE_BUCKET",
    ]
    run = click.Context(click.Command("run"), parent=click.Context(click.Group("flask")))
    with run, pytest.raises(SystemExit):
        cli.without_settings("these settings are bad")


@pytest.mark.parametrize(
    ("level", "shown"), [("INFO", ["warning"]), ("DEBUG", ["info", "warning"])]
)
def test_what_a_command_does_well_is_no_line_of_the_log(app, monkeypatch, caplog, level, shown):
    """A service logs it: at the terminal it would stand in the middle of what the command
    prints.
    """
    log, root = logging.getLogger("app.test"), logging.getLogger()

    def every(_: object) -> list:
        log.info("it works")
        log.warning("it does not")
        return []

    monkeypatch.setattr("app.cli.connections.every", every)
    with caplog.at_level(level):
        assert app.test_cli_runner().invoke(args=["connections", "list"]).exit_code == 0
        assert root.level == logging.getLevelName(level)
    levels = [record.levelname.lower() for record in caplog.records if record.name == log.name]
    assert levels == shown


def test_the_version_is_that_of_the_release_and_needs_no_settings():
    with click.Context(click.Group("flask")):
        app = cli.without_settings("these settings are bad")
    said = app.test_cli_runner().invoke(args=["version"])
    assert (said.exit_code, said.output) == (0, f"Deputy {VERSION}, database schema {KNOWN[-1]}\n")
    in_json = app.test_cli_runner().invoke(args=["version", "--json"])
    assert json.loads(in_json.output) == {"version": VERSION, "schema": KNOWN[-1]}


# --- migrate ---


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_migrate_makes_the_schema_and_may_be_repeated(engine, tmp_path):
    with empty_database(engine, tmp_path) as url:
        operator = Operator(url)
        head = ScriptDirectory.from_config(alembic_config(operator.db)).get_current_head()
        assert operator.run("migrate") == f"empty → {head}\n"
        assert operator.run("migrate") == f"Nothing to do: {head}\n"
        assert json.loads(operator.run("migrate --json")) == {"before": head, "after": head}
        assert revision(operator.db) == head is not None
        assert made_by(operator.run("keys create --name first --scope all"))
        reaches = json.loads(operator.run("after-restore --json"))["reaches"]
        assert abs(datetime.fromisoformat(reaches) - now()) < timedelta(minutes=5), (
            "the key's event"
        )
        operator.db.engine.dispose()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_migrate_leaves_the_schema_of_a_newer_release_alone_and_readiness_names_it(
    engine, tmp_path
):
    with empty_database(engine, tmp_path) as url:
        operator = Operator(url)
        operator.run("migrate")
        with operator.db.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
        said = operator.run("migrate", fails=1)
        assert (
            said == "Error: The database's schema, 9999, belongs to a newer release. Nothing was"
            " changed. Run that release.\n"
        )
        assert revision(operator.db) == "9999"
        health = operator.app.extensions["deputy"].health
        assert "migrations" not in health.missing(), (
            "a process of the release before goes on while it is replaced"
        )
        found = dict(health.findings())["migrations"]
        assert found.status is Status.WARNING
        assert found.seen.startswith("The database's schema is a newer release's;")
        operator.db.engine.dispose()


def test_without_a_database_a_command_says_so_in_one_line():
    operator = Operator("sqlite:////nonexistent/deputy.sqlite3")
    create = "keys create --name x --scope all"
    for line in ("migrate", "keys list", create, f"keys revoke {new_id()}"):
        output = operator.run(line, fails=1)
        assert output.startswith("Error: ")
        assert "database" in output
        assert len(output.splitlines()) == 1


# --- keys generate ---


def test_generate_prints_a_strong_key_and_stores_nothing(operator):
    made = [operator.run("keys generate").strip() for _ in range(3)]
    assert len(set(made)) == 3
    for text in made:
        assert re.fullmatch(KEY, text)
        assert operator.key(text) is None


# --- keys bootstrap ---


def test_bootstrap_installs_the_given_key_once(with_bootstrap):
    text = generate_key()
    operator = with_bootstrap(text)
    assert operator.run("keys bootstrap") == "The bootstrap key is installed.\n"
    assert operator.run("keys bootstrap") == "The bootstrap key is already installed.\n"
    caller = operator.api_keys.authenticate(text, None)
    assert caller.scopes == ALL_SCOPES
    assert (caller.tenant_scope, caller.expires_at) == (None, None)
    [event] = operator.events(operator.key(text))
    assert (event.action, event.outcome) == ("api_key.created", "ok")
    assert_by_the_operator(event)


def assert_by_the_operator(event: AuditEvent) -> None:
    assert (event.actor_kind, event.actor_id) == ("operator", None)
    assert event.actor_name == f"{getpass.getuser()} (command line)"


@on_sqlite
@pytest.mark.parametrize(
    "text",
    [
        "admin",
        "dpk_0123456789abcdef_" + "A1b2C3d4E5f6g7" * 3 + "h",  # 15 different characters
        generate_key()[:-1],
        generate_key() + "a",
        generate_key().replace("dpk_", "DPK_"),
    ],
    ids=["word", "15-letters", "short", "long", "prefix"],
)
def test_bootstrap_refuses_a_weak_key(with_bootstrap, text):
    operator = with_bootstrap(text)
    output = operator.run("keys bootstrap", fails=1)
    assert output.startswith("Error: DEPUTY_BOOTSTRAP_KEY")
    assert operator.key(text) is None
    if text[21:]:
        assert text[21:] not in output


def test_bootstrap_without_a_key_says_how_to_make_one(operator):
    output = operator.run("keys bootstrap", fails=1)
    assert "DEPUTY_BOOTSTRAP_KEY is not set" in output
    assert "keys generate" in output


def test_bootstrap_never_revives_a_revoked_key(with_bootstrap):
    text = generate_key()
    operator = with_bootstrap(text)
    operator.run("keys bootstrap")
    operator.run(f"keys revoke {operator.key(text).id}")
    output = operator.run("keys bootstrap", fails=1)
    assert "revoked" in output
    assert not operator.works(text)
    assert [e.action for e in operator.events(operator.key(text))] == [
        "api_key.created",
        "api_key.revoked",
    ]


def test_bootstrap_does_not_replace_another_key_with_the_same_digits(with_bootstrap):
    first = generate_key()
    second = first[:21] + generate_key()[21:]
    with_bootstrap(first).run("keys bootstrap")
    operator = with_bootstrap(second)
    operator.run("keys bootstrap", fails=1)
    assert operator.works(first)
    assert not operator.works(second)


# --- keys create ---


def test_create_prints_a_key_that_can_do_what_was_asked(operator):
    output = operator.run("keys create --name reader --scope tenants:read --scope audit:read")
    key_id, text = made_by(output)
    assert "shown this once" in output
    caller = operator.api_keys.authenticate(text, None)
    assert str(caller.key_id) == key_id
    assert caller.scopes == {Scope.TENANTS_READ, Scope.AUDIT_READ}
    assert (caller.name, caller.tenant_scope, caller.expires_at) == ("reader", None, None)
    [event] = operator.events(operator.key(text))
    assert event.action == "api_key.created"
    assert event.details["scopes"] == ["audit:read", "tenants:read"]
    assert_by_the_operator(event)
    assert text not in str(event.details)


def test_create_can_confine_a_key_to_a_tenant_and_a_time(operator):
    tenant = Tenant(id=new_id(), name="Acme")
    with operator.db.write(SYSTEM) as db:
        db.add(tenant)
    create = f"keys create --name worker --scope credentials:issue --tenant {tenant.id} --days 30"
    key_id, text = made_by(operator.run(create))
    caller = operator.api_keys.authenticate(text, None)
    assert caller.tenant_scope == tenant.id
    assert abs(caller.expires_at - now() - timedelta(days=30)) < timedelta(minutes=1)
    [event] = operator.events(operator.key(text))
    assert event.tenant_id == tenant.id
    [line] = [line for line in operator.run("keys list").splitlines() if line.startswith(key_id)]
    assert str(tenant.id) in line


@on_sqlite
def test_create_refuses_what_makes_no_sense(operator):
    """The API's own rules for a name hold here too: the audit log and `keys list` show it on one
    line.
    """
    delegate = "--name x --scope keys:delegate"
    for words in (
        "",
        "--name x",
        "--scope all",
        "--name x --scope everything",
        *(f"--name x --scope all --days {days}" for days in ("0", "-1", "soon")),
        "--name x --scope all --tenant nobody",
        *(f"--scope all --name '{name}'" for name in ("", "x" * 201, "two\nlines")),
        delegate,
        "--name x --scope all --may-give audit:read",
        f"{delegate} --scope all --may-give audit:read",
        f"{delegate} --may-give keys:write",
    ):
        line = f"keys create {words}"
        done = operator.app.test_cli_runner().invoke(args=shlex.split(line))
        assert done.exit_code in {1, 2}, words
        assert "Error: " in done.output
        assert re.search(KEY, done.output) is None


# --- keys list ---


def test_list_shows_every_key_and_its_state_and_no_secret(operator):
    def create(words: str) -> tuple[str, str]:
        return made_by(operator.run(f"keys create {words}"))

    live_id, live = create("--name 'a live one' --scope all")
    gone_id, gone = create("--name 'a gone one' --scope audit:read")
    old_id, old = create("--name 'an old one' --scope keys:write --days 1")
    gives = "--may-give credentials:issue --may-give audit:read"
    maker_id, maker = create(f"--name sign-up --scope keys:delegate {gives}")
    operator.run(f"keys revoke {gone_id}")
    ended_at = now() - timedelta(seconds=1)
    with operator.db.write(SYSTEM) as db:
        db.get(ApiKey, uuid.UUID(old_id)).expires_at = ended_at
    output = operator.run("keys list")
    lines = {line.split()[0]: line for line in output.splitlines()}
    for key_id, shown in (
        (live_id, "live  -  -  a live one  .*all  -"),
        (gone_id, "revoked  -  -  a gone one  .*audit:read  -"),
        (old_id, f"expired  {ended_at:%Y-%m-%d}.*  -  an old one  .*keys:write  -"),
        (maker_id, "live  -  -  sign-up  .*keys:delegate  audit:read credentials:issue"),
    ):
        line = re.sub(" {2,}", "  ", lines[key_id])
        assert re.fullmatch(f"{key_id}  {shown}", line), line
    names = {live_id: "a live one", gone_id: "a gone one", old_id: "an old one"}
    assert len({lines[key_id].index(name) for key_id, name in names.items()}) == 1
    for text in (live, gone, old, maker):
        assert text[21:] not in output
    assert [operator.works(text) for text in (live, gone, old)] == [True, False, False]


# --- keys revoke ---


def test_revoke_ends_a_key_at_once_and_for_good(operator):
    key_id, text = made_by(operator.run("keys create --name n --scope all"))
    assert operator.works(text)
    assert operator.run(f"keys revoke {key_id}") == "Revoked.\n"
    assert not operator.works(text)
    assert operator.run(f"keys revoke {key_id}", fails=1) == "Error: This key is revoked already.\n"
    created, revoked = operator.events(operator.key(text))
    assert (created.action, revoked.action) == ("api_key.created", "api_key.revoked")
    assert_by_the_operator(revoked)


def test_a_command_needs_a_key_or_a_tenant_that_is_there(operator):
    for word in (str(uuid.uuid4()), "not-a-name", "dpk_", ""):
        assert operator.run(f"keys revoke '{word}'", fails=1) == "Error: There is no such key.\n"
    deleted = Tenant(id=new_id(), name="gone", deleted_at=now())
    with operator.db.write(SYSTEM) as db:
        db.add(deleted)
    for tenant in (str(deleted.id), str(new_id()), "nobody"):
        for line in ("keys create --name x --scope all --tenant", "registrations void"):
            refused = operator.run(line, tenant, fails=1)
            assert refused == "Error: There is no such tenant.\n"


# --- keys: what goes with a revoked one ---


def test_revoke_shows_what_goes_with_the_key_and_asks_but_with_yes(operator):
    key_id, text = made_by(operator.run("keys create --name maker --scope keys:write"))
    caller = operator.api_keys.authenticate(text, None)
    child, secret = operator.api_keys.create_key(
        caller, name="its child", scopes=frozenset({Scope.KEYS_WRITE})
    )
    output = operator.run(f"keys revoke {key_id}", fails=1)  # nobody answers
    assert "live keys 1, live onboarding links 0" in output
    assert f"{child.id}  its child" in output
    assert "Revoke all of these?" in output
    assert operator.works(secret)
    output = operator.run(f"keys revoke --yes {key_id}")
    assert "its child" in output
    assert output.endswith("Revoked.\n")
    assert not operator.works(secret)


def test_a_key_can_be_made_for_some_permission_sets(operator):
    create = "keys create --name scanner --scope credentials:issue --permission-set"
    _, text = made_by(operator.run(f"{create} inventory"))
    assert operator.key(text).permission_sets == ["inventory"]
    refused = operator.run(f"{create} no-such", fails=1)
    assert "permission_sets: Must be some of: bucket-sync, inventory." in refused
