"""The operator's commands, against a real database: what they print, what they change, and what
they leave on record.
"""

import getpass
import io
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import click
import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from app import VERSION
from app.cli import COMMANDS
from app.cli.commands import lines, show
from app.clock import now
from app.errors import StoreUnavailableError, UnauthenticatedError
from app.factory import create_app, without_settings
from app.health.checks import Status
from app.identity.key_text import generate_key
from app.identity.scopes import ALL_SCOPES, Scope
from app.ids import new_id
from app.services import Services
from app.store.database import SYSTEM
from app.store.migrations import REVISION, revision
from app.store.models import ApiKey, Tenant
from tests.cli.conftest import Cli
from tests.conftest import OPERATOR, make_config
from tests.support.databases import NOWHERE, empty_database
from tests.support.rows import at_once

KEY = r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"


@pytest.fixture
def services(app) -> Services:
    return app.extensions["deputy"]


def caller_of(services, text):
    """Whom this text authenticates; None: nobody."""
    try:
        return services.api_keys.authenticate(text, None)
    except UnauthenticatedError:
        return None


def events_of(cli, key_id):
    """What is on record about a key, oldest first; each of them by the operator."""
    actions = "--action api_key.created --action api_key.revoked"
    events = [
        event
        for event in reversed(cli(f"audit search {actions} --limit 100"))
        if event["details"]["api_key_id"] == key_id
    ]
    for event in events:
        assert event["actor"] == {
            "operator": f"tests (command line, claimed by {getpass.getuser()})"
        }
        assert event["outcome"] == "ok"
    return events


# --- who the operator is ---


READING = {
    "audit issued", "audit search", "audit tail", "audit who", "audit alive", "audit archive",
    "connections list", "connections show", "doctor", "keys generate", "keys list", "keys show",
    "links list", "migrate", "rotation show", "templates check", "templates publish",
    "tenants list", "tenants show", "version", "webhooks deliveries", "webhooks list", "worker",
}  # fmt: skip


def test_every_command_that_writes_an_event_takes_the_operators_name():
    takes = {words for words, verb in every_verb() if any("--as" in p.opts for p in verb.params)}
    assert takes == {*dict(every_verb())} - READING


class Someone(NamedTuple):
    claim: tuple[str, ...] = ()
    at_terminal: bool = True
    variables: Mapping[str, str] = MappingProxyType({})


OF_RUTH = MappingProxyType({"SUDO_USER": "ruth"})


@pytest.mark.parametrize(
    ("someone", "name"),
    [
        (Someone(), "{login} (command line)"),
        (Someone(variables=OF_RUTH), "ruth (command line, sudo to {login})"),
        (Someone(("--as", "ed")), "ed (command line, claimed by {login})"),
        (Someone(("--as", "ed"), variables=OF_RUTH), "ed (command line, claimed by ruth)"),
        (Someone(("--as", "ed"), at_terminal=False), "ed (command line, claimed by {login})"),
        (
            Someone(at_terminal=False, variables={"DEPUTY_OPERATOR": "jo"}),
            "jo (command line, claimed by {login})",
        ),
        (
            Someone(("--as", "ed"), variables={"DEPUTY_OPERATOR": "jo"}),
            "ed (command line, claimed by {login})",
        ),
    ],
)
def test_an_event_names_the_operator_and_how_the_name_is_known(people, someone, name):
    suspended = people.suspend(someone)
    assert suspended.exit_code == 0, suspended.output
    login = getpass.getuser()
    assert people.suspensions()[0]["actor"] == {"operator": name.format(login=login)}


@pytest.mark.parametrize(
    "someone",
    [
        Someone(at_terminal=False),
        Someone(at_terminal=False, variables=OF_RUTH),
        Someone(("--as", "")),
        Someone(("--as", "a\nb")),
        Someone(("--as", "a" * 81)),
    ],
)
def test_a_change_by_nobody_is_refused(people, someone):
    refused = people.suspend(someone)
    assert refused.exit_code == 2, refused.output
    assert "--as" in refused.output
    assert people.suspensions() == []


class People:
    def __init__(self, cli, tenant_id, monkeypatch):
        self._cli, self._tenant_id, self._patch = cli, tenant_id, monkeypatch

    def suspend(self, someone):
        self._patch.delenv("DEPUTY_OPERATOR")
        self._patch.delenv("SUDO_USER", raising=False)
        for variable, value in someone.variables.items():
            self._patch.setenv(variable, value)
        terminal = lambda _: someone.at_terminal  # noqa: E731
        self._patch.setattr("click.testing._NamedTextIOWrapper.isatty", terminal)
        return self._cli.raw(f"tenants suspend {self._tenant_id} --reason x", *someone.claim)

    def suspensions(self):
        return self._cli(f"audit search --tenant {self._tenant_id} --action tenant.suspended")


@pytest.fixture
def people(cli, acme, monkeypatch) -> People:
    return People(cli, acme["id"], monkeypatch)


def test_a_command_that_only_reads_asks_nobody_for_a_name(cli, acme, monkeypatch):
    monkeypatch.delenv("DEPUTY_OPERATOR")
    assert cli(f"tenants show {acme['id']}")["id"] == acme["id"]


# --- help ---


def every_verb():
    """Each command that does something, with its words."""
    for command in COMMANDS:
        verbs = command.commands if isinstance(command, click.Group) else {}
        yield from ((f"{command.name} {name}", verb) for name, verb in verbs.items())
        if not verbs:
            yield str(command.name), command


def test_no_library_adds_a_command_that_would_print_an_empty_document(app):
    assert "openapi" not in app.cli.commands


def test_every_command_has_a_help_text_and_an_example_and_answers_in_json_too():
    """The help text's first sentence fits into the list of commands."""
    for command in (*COMMANDS, *dict(every_verb()).values()):
        assert command.help, command.name
        assert not command.get_short_help_str(60).endswith("..."), command.name
    for words, verb in every_verb():
        assert f"flask --app wsgi {words}" in (verb.epilog or ""), words
        in_json = any("--json" in option.opts for option in verb.params)
        assert in_json or words == "worker", "which runs until it is stopped"


def app_without_settings():
    with click.Context(click.Group("flask")):
        return without_settings("these settings are bad")


def test_help_and_the_version_need_no_settings():
    cli = Cli(app_without_settings())
    for words in ["", *dict(every_verb())]:
        assert cli.text(words, "--help").startswith("Usage:")
    assert cli.text("version") == f"Deputy {VERSION}, database schema {REVISION}\n"
    assert cli("version") == {"version": VERSION, "schema": REVISION}
    for words in ("migrate", "worker", "keys list", "keys bootstrap"):
        assert cli.refused(words) == "Error: these settings are bad\n", words
    run = click.Context(click.Command("run"), parent=click.Context(click.Group("flask")))
    with run, pytest.raises(SystemExit):
        without_settings("these settings are bad")


def test_a_driver_that_says_nothing_is_no_traceback(cli, services, monkeypatch):
    def away(*_, **__):
        raise StoreUnavailableError("away") from OperationalError("", {}, Exception())

    monkeypatch.setattr(services.tenants, "list", away)
    assert cli.refused("tenants list").startswith("Error: away")


def test_an_empty_database_is_named():
    with empty_database() as url:
        app = create_app(make_config(url))
        refused = Cli(app).refused("tenants list")
        app.extensions["deputy"].db.engine.dispose()
    assert refused.startswith("Error: The database is not migrated (")
    assert refused.endswith(" Run: flask --app wsgi migrate\n")
    assert len(refused.splitlines()) == 1


def test_templates_name_the_settings_that_they_need(monkeypatch):
    monkeypatch.setenv("DEPUTY_VENDOR_NAME", "Acme")
    first, *missing = Cli(app_without_settings()).refused("templates publish").splitlines()
    assert first == "Error: Templates can't be rendered with these settings:"
    assert [line.partition(":")[0] for line in missing if line.startswith("DEPUTY_")] == [
        "DEPUTY_BROKER_PRINCIPAL_ARN",
        "DEPUTY_TEMPLATE_BUCKET",
    ]


@pytest.mark.parametrize(
    ("level", "shown"), [("INFO", ["warning"]), ("DEBUG", ["info", "warning"])]
)
def test_what_a_command_does_well_is_no_line_of_the_log(cli, monkeypatch, caplog, level, shown):
    """A service logs it: at the terminal it would stand in the middle of what the command
    prints.
    """
    log, root = logging.getLogger("app.test"), logging.getLogger()

    def every(*_):
        log.info("it works")
        log.warning("it does not")
        return []

    monkeypatch.setattr("app.cli.connections.every", every)
    with caplog.at_level(level):
        cli.text("connections list")
        assert root.level == logging.getLevelName(level)
    levels = [record.levelname.lower() for record in caplog.records if record.name == log.name]
    assert levels == shown


# --- the database ---


def test_migrate_makes_the_schema_may_be_repeated_and_leaves_that_of_another_release_alone():
    head = REVISION
    with empty_database() as url:
        app = create_app(make_config(url))
        cli, services = Cli(app), app.extensions["deputy"]
        assert cli.text("migrate") == f"empty → {head}\n"
        assert cli.text("migrate") == f"Nothing to do: {head}\n"
        assert cli("migrate") == {"before": head, "after": head}
        assert revision(services.db) == head
        cli("keys create --name first --scope all")
        reaches = datetime.fromisoformat(cli("after-restore")["reaches"])
        assert abs(reaches - now()) < timedelta(minutes=5), "the key's event"
        again = cli("after-restore")["reaches"]
        assert datetime.fromisoformat(again) == reaches, "its own event does not count"
        with services.db.engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '9999'"))
        other = "The database's schema, 9999, belongs to another release"
        assert cli.refused("migrate") == (
            f"Error: {other}, and before 1.0 there is no upgrade. Run that release, or begin with"
            " an empty database.\n"
        )
        assert revision(services.db) == "9999"
        assert "migrations" in services.health.missing()
        finding = dict(services.health.findings())["migrations"]
        assert (finding.status, finding.seen) == (Status.FAILED, f"{other}.")
        services.db.engine.dispose()


def test_a_database_that_can_not_hold_every_name_is_not_migrated():
    latin = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    with empty_database(latin) as url:
        app = create_app(make_config(url))
        assert "ENCODING 'UTF8'" in Cli(app).refused("migrate")
        app.extensions["deputy"].db.engine.dispose()


def test_without_a_database_a_command_says_so_in_one_line():
    cli = Cli(create_app(make_config(NOWHERE)))
    create = "keys create --name x --scope all"
    for line in ("migrate", "keys list", create, f"keys revoke {new_id()}"):
        output = cli.refused(line)
        assert output.startswith("Error: ")
        assert "database" in output
        assert len(output.splitlines()) == 1


# --- keys generate and bootstrap ---


def test_generate_prints_a_strong_key_and_stores_nothing(cli):
    keys = {cli.text("keys generate").strip() for _ in range(3)}
    assert len(keys) == 3
    for text in keys:
        assert re.fullmatch(KEY, text)
        assert "There is no such key" in cli.refused(f"keys show {text}")


def test_bootstrap_installs_the_given_key_once_and_never_revives_it(services, cli, start):
    text = generate_key()
    bootstrap = Cli(start({}, bootstrap_key=text))
    assert bootstrap.text("keys bootstrap") == "The bootstrap key is installed.\n"
    assert bootstrap.text("keys bootstrap") == "The bootstrap key is already installed.\n"
    caller = caller_of(services, text)
    assert caller.scopes == ALL_SCOPES
    assert caller.tenant_scope is caller.expires_at is None
    other = Cli(start({}, bootstrap_key=text[:21] + generate_key()[21:]))
    assert "Another key has these hex digits" in other.refused("keys bootstrap")
    assert caller_of(services, text)
    cli.text(f"keys revoke {text}")
    assert "revoked" in bootstrap.refused("keys bootstrap")
    assert caller_of(services, text) is None
    events = events_of(cli, str(caller.key_id))
    assert [event["action"] for event in events] == ["api_key.created", "api_key.revoked"]


def test_bootstrap_refuses_a_weak_key_and_shows_none_of_it(services, start):
    weak = "dpk_0123456789abcdef_" + "A1b2C3d4E5f6g7" * 3 + "h"  # 15 different characters
    for text in ("admin", generate_key()[:-1], generate_key() + "a", f"DPK{generate_key()[3:]}"):
        with pytest.raises(ValueError):
            services.api_keys.install_key(OPERATOR, text, name="x")
    output = Cli(start({}, bootstrap_key=weak)).refused("keys bootstrap")
    assert output.startswith("Error: DEPUTY_BOOTSTRAP_KEY")
    assert weak[21:] not in output
    assert caller_of(services, weak) is None


def test_containers_that_start_together_install_the_key_once(services):
    text = generate_key()
    install = partial(services.api_keys.install_key, OPERATOR, text, name="bootstrap")
    assert sorted(at_once([install] * 4)) == [False, False, False, True]


def test_bootstrap_without_a_key_says_how_to_make_one(cli):
    output = cli.refused("keys bootstrap")
    assert "DEPUTY_BOOTSTRAP_KEY is not set" in output
    assert "keys generate" in output


def test_a_result_that_can_not_be_printed_is_refused_in_a_line(monkeypatch):
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(full, write_through=True))
        with pytest.raises(click.ClickException, match="can't be printed: No space left on device"):
            show("Done.", lines, as_json=False)


# --- keys create ---


def test_create_prints_a_key_that_can_do_what_was_asked(services, cli):
    output = cli.text("keys create --name reader --scope tenants:read --scope audit:read")
    key_id, text = re.search(rf"^id   (\S{{36}})\nkey  ({KEY})$", output, re.MULTILINE).groups()
    assert f"The key {key_id} is shown this once" in output
    caller = caller_of(services, text)
    assert str(caller.key_id) == key_id
    assert caller.scopes == {Scope.TENANTS_READ, Scope.AUDIT_READ}
    assert caller.name == "reader"
    assert caller.tenant_scope is None
    assert caller.expires_at is None
    [event] = events_of(cli, key_id)
    assert event["action"] == "api_key.created"
    assert event["details"]["scopes"] == ["audit:read", "tenants:read"]
    assert text not in str(event)


def test_create_can_confine_a_key_to_a_tenant_a_time_and_permission_sets(services, cli, acme):
    create = "keys create --name scanner --scope credentials:issue --permission-set"
    made = cli(f"{create} inventory --tenant {acme['id']} --days 30")
    caller = caller_of(services, made["key"])
    assert str(caller.tenant_scope) == acme["id"]
    assert abs(caller.expires_at - now() - timedelta(days=30)) < timedelta(minutes=1)
    [event] = events_of(cli, made["id"])
    assert event["tenant_id"] == acme["id"]
    [row] = cli(f"keys list --tenant {acme['id']}")
    assert row["id"] == made["id"]
    assert row["permission_sets"] == ["inventory"]
    refused = cli.refused(f"{create} no-such")
    assert "permission_sets: Must be some of: bucket-sync, inventory." in refused


def test_create_refuses_what_makes_no_sense(cli):
    """The API's own rules for a name hold here too: the audit log and `keys list` show it on one
    line.
    """
    refused = """--name x
        --scope all
        --name x --scope everything
        --name x --scope all --days 0
        --name x --scope all --days soon
        --name x --scope all --tenant nobody
        --scope all --name ''
        --name x --scope keys:delegate
        --name x --scope all --may-give audit:read
        --name x --scope keys:delegate --scope all --may-give audit:read
        --name x --scope keys:delegate --may-give keys:write"""
    names = (f"--scope all --name '{name}'" for name in ("x" * 201, "two\nlines"))
    for words in ("", *names, *refused.splitlines()):
        done = cli.raw(f"keys create {words}")
        assert done.exit_code in {1, 2}, words
        assert "Error: " in done.output
        assert re.search(KEY, done.output) is None


# --- keys list ---


def test_list_shows_every_key_and_its_state_and_no_secret(services, cli):
    gives = "--may-give credentials:issue --may-give audit:read"
    live = cli("keys create --name 'a live one' --scope all")
    revoked = cli("keys create --name 'a gone one' --scope audit:read")
    expired = cli("keys create --name 'an old one' --scope keys:write --days 1")
    both = cli("keys create --name 'a dead one' --scope audit:read --days 1")
    maker = cli(f"keys create --name sign-up --scope keys:delegate {gives}")
    ended_at = now() - timedelta(seconds=1)
    with services.db.write(SYSTEM) as db:
        for key in (expired, both):
            db.execute(
                sqlalchemy.update(ApiKey)
                .where(ApiKey.lookup == key["key"][4:20])
                .values(expires_at=ended_at)
            )
    for key in (revoked, both):
        cli.text(f"keys revoke {key['id']}")
    output = cli.text("keys list")
    lines = {line.split()[0]: line for line in output.splitlines()}
    ended = f"{ended_at:%Y-%m-%d}.*"
    for key, shown in (
        (live, "live  -  -  a live one  .*all  -"),
        (revoked, "revoked  -  -  a gone one  .*audit:read  -"),
        (expired, f"expired  {ended}  -  an old one  .*keys:write  -"),
        (both, f"revoked  {ended}  -  a dead one  .*audit:read  -"),
        (maker, "live  -  -  sign-up  .*keys:delegate  audit:read credentials:issue"),
    ):
        line = re.sub(" {2,}", "  ", lines[key["id"]])
        assert re.fullmatch(f"{key['id']}  {shown}", line), line
        assert key["key"][21:] not in output
        assert (caller_of(services, key["key"]) is None) == ("live" not in shown)


# --- keys revoke ---


def test_a_command_needs_a_key_or_a_tenant_that_is_there(services, cli):
    for word in (str(new_id()), "not-a-name", "dpk_", ""):
        assert cli.refused(f"keys revoke '{word}'") == "Error: There is no such key.\n"
    deleted = Tenant(id=new_id(), name="gone", deleted_at=now())
    with services.db.write(SYSTEM) as db:
        db.add(deleted)
    for tenant in (str(deleted.id), str(new_id()), "nobody"):
        for line in ("keys create --name x --scope all --tenant", "registrations void"):
            refused = cli.refused(line, tenant)
            assert refused == "Error: There is no such tenant.\n"


def test_revoke_shows_what_goes_with_the_key_and_asks_but_with_yes(services, cli):
    made = cli("keys create --name maker --scope keys:write --scope webhooks:write")
    services.endpoints.create(
        caller_of(services, made["key"]), url="https://93.184.215.14/", types=["*"]
    )
    child, secret = services.api_keys.create_key(
        caller_of(services, made["key"]), name="its child", scopes=frozenset({Scope.KEYS_WRITE})
    )
    output = cli.refused(f"keys revoke {made['id']}")  # nobody answers
    assert "live keys 1, live onboarding links 0, webhook endpoints 1." in output
    assert f"{child.id}  its child" in output
    assert "Revoke all of these?" in output
    assert output.endswith(
        "Error: Nothing was changed. --help says how to run it without the question.\n"
    )
    assert caller_of(services, secret)
    output = cli.text(f"keys revoke --yes {made['id']}")
    assert "its child" in output
    assert output.endswith("Revoked.\n")
    assert caller_of(services, secret) is None
    again = cli.refused(f"keys revoke {made['id']}")
    assert again == "Error: This key is revoked already.\n"
