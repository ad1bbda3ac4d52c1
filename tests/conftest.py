"""Real parts: a sandbox AWS over HTTP, SQLite and a real PostgreSQL, real API keys. Nothing in app/ is replaced.

The fixed cast: Acme and Globex are customers (tenants), each with AWS accounts of their own; `admin` is the vendor's
key for everything; a worker's key is bound to one tenant and can only issue. Tests share one database per engine
and keep apart by tenant, so none of them may expect an empty one.
"""

from __future__ import annotations

import gc
import logging
import shutil
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from botocore import hooks, regions
from botocore.client import ClientCreator
from botocore.loaders import Loader
from flask import Flask
from playwright.sync_api import Browser, expect, sync_playwright
from sqlalchemy import Engine, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from app.access import api_keys
from app.access.callers import Operator, Scope
from app.aws import sts
from app.config import Broker, Config
from app.factory import create_app
from app.limits import refusals
from app.limits.rates import Limit
from app.onboarding.page_links import Links
from app.onboarding.registration_token import RegistrationTokens
from dev.stack import ONLY_THESE_CREDENTIALS
from sandbox.vendor import VENDOR_ACCOUNT, Vendor, VendorStack, deploy_canary, deploy_vendor
from tests.support import logged_secrets, open_transactions
from tests.support.cast import Api, Customer, World
from tests.support.databases import begin_run, end_run, new_database

if TYPE_CHECKING:
    from sandbox.server import Sandbox

OTHER_VENDOR_ACCOUNT = "999988887777"
BROKER_TEMPLATE = Path(__file__).parent.parent / "cloudformation" / "broker.yaml"
CANARY_TEMPLATE = BROKER_TEMPLATE.with_name("canary.yaml")
OPERATOR = Operator("tests")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "there is no Chromium on this machine (apt-get install chromium)"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NO_NGINX = "there is no nginx on this machine (apt-get install nginx)"
NO_JAVASCRIPT = "npm is not on this machine, or does not reach its registry (apt-get install nodejs npm)"
_MISSING = (("in a browser", NO_BROWSER), ("behind nginx", NO_NGINX), ("of JavaScript SDKs", NO_JAVASCRIPT))
# Where a database's locks and statements are what is tested, each test runs on both.
_ON_BOTH = (
    *("tests/access/", "tests/audit/", "tests/background/", "tests/concurrency/", "tests/honesty/", "tests/limits/"),
    *("tests/store/", "tests/attacks/test_attack_races.py", "tests/issuing/test_other_processes.py"),
    *("tests/connections/test_listing.py", "tests/connections/test_proof_queue.py"),
)
_WAITING = ("honesty", "dev", "client", "web", "background", "deploy")  # the longest first
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (logged_secrets, open_transactions):
        config.pluginmanager.register(plugin)
    if begin_run():
        config.add_cleanup(end_run)
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Around pytest's own choice by marks, which must know the ones added here; the order is of what it leaves."""
    if [Path(argument).name for argument in config.args] == ["tests"]:
        _share_out_databases(items)
    yield
    _order(config, items)


def _share_out_databases(items: list[pytest.Item]) -> None:
    """In the whole suite most tests run on one database, by their name: half of them on each, the rest in `make soak`.

    What is named on the command line, a test or a folder, runs on both.
    """
    both: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for engine in {"sqlite", "postgresql"}.intersection(value for value in params if isinstance(value, str)):
            if not item.nodeid.startswith(_ON_BOTH):
                both[item.nodeid.replace(engine, "")][engine] = item
    for name, variants in both.items():
        if len(variants) == 2:
            other = ("sqlite", "postgresql")[zlib.crc32(name.encode()) % 2]
            variants[other].add_marker(pytest.mark.soak)


def _order(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of xdist's workers begins with folders whose tests wait for the same processes, which so are started once.

    What it has left is taken from the end, so the last tests are short ones.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    slow: list[list[pytest.Item]] = [[] for _ in range(workers)]
    turns = [*slow, *reversed(slow)]  # who has the longest folder has the shortest as well
    others: list[pytest.Item] = []
    for item in items:
        place = next((n for n, folder in enumerate(_WAITING) if item.nodeid.startswith(f"tests/{folder}/")), None)
        (others if place is None else turns[place % len(turns)]).append(item)
    ordered: list[pytest.Item] = []
    for number, first in enumerate(slow, 1):
        ordered += first
        room = max(0, len(items) * number // workers - len(ordered))
        ordered += others[:room]
        del others[:room]
    items[:] = ordered + others


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stderr is shown where a test fails, and has every log line: pytest need not write each a second time."""
    session.config.pluginmanager.get_plugin("logging-plugin").report_handler.setLevel(logging.CRITICAL + 1)


def pytest_collection_finish() -> None:
    """moto and botocore are large. What was imported stays, so the collector need not look through it again."""
    gc.freeze()
    gc.set_threshold(50_000)  # a request makes thousands of objects, and few cycles
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A machine that lacks something must not look as if everything had been tried."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for where, reason in _MISSING:
        if count := sum(reason in text for text in skipped):
            terminalreporter.write_line(f"{count} tests {where} were skipped: {reason}.")


def once(function: Callable[..., Any], key: Callable[..., Hashable]) -> Callable[..., Any]:
    """The function, called once for each key of its arguments."""
    known: dict[Hashable, Any] = {}

    def ask(*args: object, **kwargs: object) -> object:
        wanted = key(*args, **kwargs)
        if wanted not in known:
            known[wanted] = function(*args, **kwargs)
        return known[wanted]

    return ask


@pytest.fixture(scope="session", autouse=True)
def botocore_reads_its_files_once() -> Iterator[None]:
    """Each of its sessions reads some megabytes of JSON, inspects its functions and renames its events, and each of its
    clients makes a model, methods and endpoint rules of that JSON: all the same.
    """
    read: dict[object, object] = {}
    alias = cache(hooks.EventAliaser(None)._alias_event_name)
    methods = once(ClientCreator._create_methods, lambda _, model: model)
    with pytest.MonkeyPatch.context() as patch:
        model = once(ClientCreator._load_service_model, lambda _, *wanted: wanted)
        patch.setattr(ClientCreator, "_load_service_model", model)
        patch.setattr(ClientCreator, "_create_methods", lambda *given: dict(methods(*given)))  # boto3 adds some
        rules = once(regions.EndpointProvider, lambda **given: id(given["ruleset_data"]))  # read once
        patch.setattr(regions, "EndpointProvider", rules)
        patch.setattr(Loader, "_cache", property(lambda _: read, lambda *_: None), raising=False)
        patch.setattr(hooks, "accepts_kwargs", cache(hooks.accepts_kwargs))
        patch.setattr(hooks.EventAliaser, "_alias_event_name", lambda _, name: alias(name))
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_and_routes_are_compiled_once() -> Iterator[None]:
    """Each service has an engine and routes, and hundreds of tests have a service of their own: all the same."""
    compiled: LRUCache[object, object] = LRUCache(2000)
    route = once(Rule._compile_builder, lambda rule, *which: (rule.rule, str(rule._trace), str(rule.defaults), which))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", route)
        patch.setattr(Engine, "_compiled_cache", property(lambda _: compiled, lambda *_: None), raising=False)
        patch.setattr(DefaultDialect, "__eq__", lambda one, other: type(one) is type(other))
        patch.setattr(DefaultDialect, "__hash__", lambda one: hash(type(one)))
        yield


@pytest.fixture(scope="session")
def aws() -> Iterator[Sandbox]:
    """The one sandbox of this process: moto keeps its state in globals, so a second one would share it."""
    from sandbox.identity import Identities  # noqa: PLC0415
    from sandbox.server import Sandbox  # noqa: PLC0415  with moto, which takes a second that tests without AWS need not wait

    Identities.open_session = logged_secrets.noting(  # the broker's own too, and those of other processes
        "a session", Identities.open_session, lambda session: [session.secret_access_key, session.token]
    )
    with Sandbox() as sandbox:
        given = {
            "AWS_ENDPOINT_URL": sandbox.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{sandbox.url}/_sandbox/broker-credentials",
            **ONLY_THESE_CREDENTIALS,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
                patch.delenv(name, raising=False)
            for name, value in given.items():
                patch.setenv(name, value)
            yield sandbox


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The one browser of this process; a test opens a context, or a page, of its own and closes it."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        # What moves is painted sixty times a second for as long as a test waits.
        still = "--force-prefers-reduced-motion"
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", still])
        yield started
        started.close()


@pytest.fixture(scope="session")
def vendor(aws: Sandbox) -> VendorStack:
    """The vendor's side, as broker.yaml makes it."""
    others = Vendor(parameters={"VendorAccountIds": OTHER_VENDOR_ACCOUNT})
    deployed = deploy_vendor(aws.url, BROKER_TEMPLATE.read_text(), others)
    aws.use_vendor(deployed)
    return deployed


@pytest.fixture(scope="session")
def canary_stack(aws: Sandbox, vendor: VendorStack) -> VendorStack:
    """The vendor's side with the canary and the stranger, as canary.yaml makes them; no service uses them by itself."""
    return deploy_canary(aws.url, CANARY_TEMPLATE.read_text(), vendor)


@pytest.fixture
def faults(aws: Sandbox) -> Iterator[object]:
    """AWS's bad days; over at the end of the test."""
    yield aws.faults
    aws.faults.clear()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with new_database(request.param) as url:
        yield url


@pytest.fixture(scope="session")
def config(database_url: str) -> Config:
    return make_config(database_url)


def make_config(database_url: str, **changes: object) -> Config:
    made = _config(database_url, **changes)
    for secret in (*made.secret_keys, make_url(database_url).password or ""):
        logged_secrets.note("a setting", secret)
    return made


def _config(database_url: str, **changes: object) -> Config:
    return replace(
        Config(
            database_url=database_url,
            secret_keys=("first-secret-key-of-the-tests-0123456789", "older-secret-key-of-the-tests-0123456789"),
            broker=Broker.parse(f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker"),
            vendor_account_ids=frozenset({VENDOR_ACCOUNT, OTHER_VENDOR_ACCOUNT}),
            vendor_name="Example Vendor",
            template_bucket=f"deputy-templates-{VENDOR_ACCOUNT}",
            region="us-east-1",
        ),
        **changes,
    )


@pytest.fixture(scope="session")
def app(aws: Sandbox, vendor: VendorStack, config: Config) -> Iterator[Flask]:
    application = create_app(config)
    application.testing = False  # exceptions become answers, as in production
    # Tests look at a page more often than people and browsers do; test_page_rate.py has the limit.
    rates = application.extensions["deputy"].rates
    rates._page = Limit("page", 1_000_000, 1, rates._page.refusal)
    yield application
    application.extensions["deputy"].db.engine.dispose()


@pytest.fixture(scope="session")
def admin(app: Flask) -> Api:
    """The vendor's key with every scope."""
    _, text = app.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="tests' admin", scopes=frozenset(Scope), tenant_id=None, expires_at=None
    )
    return Api(app, text)


@pytest.fixture
def start(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Flask]]:
    """`start({"AWS_…": …}, max_session_seconds=…)`: another process of the service, in that environment (None: unset)."""
    started: list[Flask] = []

    def begin(environment: dict[str, str | None], **settings: object) -> Flask:
        for name, value in environment.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        app = create_app(replace(config, **settings))
        app.testing = False
        started.append(app)
        return app

    yield begin
    for app in started:
        services = app.extensions["deputy"]
        services.db.engine.dispose()
        services.issuer._sts._api._pool.close()


def publish_templates(app: Flask) -> None:
    """As the vendor's deploy pipeline does it: with credentials that may write to the bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        patch.setenv("AWS_ACCESS_KEY_ID", VENDOR_ACCOUNT)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
        app.extensions["deputy"].onboarding.publish()


@pytest.fixture
def world(aws: Sandbox, admin: Api) -> World:
    """Makes tenants, customers' accounts, roles and connections, the way real people would."""
    return World(aws, admin)


@pytest.fixture
def customer(aws: Sandbox) -> Customer:
    return Customer(aws)


refusals.OF_TENANT = 1_000_000  # before a service is made


@pytest.fixture(autouse=True)
def every_refusal_is_recorded_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share keys, and are refused more in a second than a program in life; test_refusals.py has the bounds."""
    monkeypatch.setattr("app.limits.refusals.SINGLY", 1_000_000)
    monkeypatch.setattr("app.limits.refusals.MOST", 1_000_000)


def _note_what_is_issued() -> None:
    for kind, place, name, secrets_of in (
        ("an API key", api_keys, "_add", lambda made: [made[1][-43:]]),
        ("an onboarding link", Links, "create", lambda made: [made[1].rpartition("/")[2]]),
        ("a registration token", RegistrationTokens, "make", lambda token: [token[-24:]]),  # its MAC
        ("a session", sts, "_session", lambda session: [session.secret_access_key, session.session_token]),
    ):
        setattr(place, name, logged_secrets.noting(kind, getattr(place, name), secrets_of))


_note_what_is_issued()


class StoppedClock:
    """What limits are counted by: the middle of a second, and of a minute, until it is moved."""

    def __init__(self) -> None:
        self._passed = 0.0

    def move(self, seconds: float) -> None:
        self._passed += seconds

    def monotonic(self) -> float:
        return 1_000_000.5 + self._passed

    def now(self) -> datetime:
        return datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC) + timedelta(seconds=self._passed)

    sleep = staticmethod(time.sleep)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr("app.limits.rates.time", clock)
    monkeypatch.setattr("app.limits.turns.time", clock)
    monkeypatch.setattr("app.limits.quotas.now", clock.now)
    return clock


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What gives up on a caller after two seconds waits for a slow machine; a test that is about it sets its own."""
    monkeypatch.setattr("app.issuing.issue._ANSWER_SECONDS", 60.0)
    monkeypatch.setattr("app.issuing.authorization._READ_SECONDS", 60.0)


@pytest.fixture
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """For services that a test makes: they give AWS, which is on this machine, as much time as it needs."""
    monkeypatch.setattr("app.aws.query._TIMEOUTS", urllib3.Timeout(connect=60, read=60))
