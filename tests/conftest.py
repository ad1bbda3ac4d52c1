"""Real parts: a sandbox AWS over HTTP, PostgreSQL, real API keys. Of app/ only limits and
deadlines are replaced, which tests together would reach and a slow machine would miss.

The fixed cast: Acme and Globex are customers (tenants), each with AWS accounts of their own;
`admin` is the vendor's key for everything; a worker's key is bound to one tenant and can only
issue. Tests share one database and keep apart by tenant, so none of them may expect an
empty one.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from flask import Flask
from playwright.sync_api import Browser, expect, sync_playwright
from sqlalchemy import make_url

from app.audit import Event
from app.aws import sts
from app.config import Config
from app.factory import create_app
from app.identity import api_keys
from app.identity.key_uses import KeyUses
from app.identity.scopes import ALL_SCOPES
from app.ids import Broker, new_id
from app.limits import refusal_events
from app.limits.counting_in_memory import TokenBucket
from app.onboarding.page_links import Links
from app.onboarding.registration_tokens import RegistrationTokens
from app.settings.return_urls import return_urls
from app.settings.setting_types import groups_of
from dev.stack import ONLY_THESE_CREDENTIALS
from sandbox.vendor import (
    VENDOR_ACCOUNT,
    Vendor,
    VendorStack,
    deploy_canary,
    deploy_regions,
    deploy_vendor,
)
from tests.support import compile_once, fixtures, logged_secrets, open_transactions, order
from tests.support.cast import OPERATOR, Api, Customer, World
from tests.support.databases import begin_run, end_run, new_database
from tests.support.event_details import checking

if TYPE_CHECKING:
    from sandbox.server import Sandbox

os.environ["DEPUTY_OPERATOR"] = "tests"  # commands are given where there is no terminal

OTHER_VENDOR_ACCOUNT = "999988887777"
BROKER_TEMPLATE = Path(__file__).parent.parent / "cloudformation" / "broker.yaml"
CANARY_TEMPLATE = BROKER_TEMPLATE.with_name("canary.yaml")
REGION_TEMPLATE = BROKER_TEMPLATE.with_name("broker-region.yaml")
IMPORTED_ROLE = "CrossAccount"  # broker.yaml lets imported roles have this name
_VENDOR = Vendor(
    parameters={
        "ImportedRoleNames": IMPORTED_ROLE,
        "VendorAccountIds": OTHER_VENDOR_ACCOUNT,
        # The second has to be enabled, so SNS sends from it under another name
        "RegistrationRegions": "eu-central-1,eu-south-1",
    }
)
# The shell, which has no window of its own, takes half of the others' CPU.
_BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _BROWSERS)), None)
NO_BROWSER = "there is no Chromium on this machine (apt-get install chromium-headless-shell)"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NO_NGINX = "there is no nginx on this machine (apt-get install nginx)"
NO_JAVASCRIPT = "npm does not reach its registry"
NO_TERRAFORM = "PyPI has no Terraform and no provider for AWS for this kind of machine"
_MISSING = (
    ("in a browser", NO_BROWSER),
    ("behind nginx", NO_NGINX),
    ("in JavaScript and TypeScript", NO_JAVASCRIPT),
    ("with Terraform", NO_TERRAFORM),
)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)


def pytest_configure(config):
    for plugin in (compile_once, fixtures, logged_secrets, open_transactions, order):
        config.pluginmanager.register(plugin)
    if begin_run():
        config.add_cleanup(end_run)
    gc.freeze()


def pytest_sessionstart(session):
    """Stderr is shown where a test fails, and has every log line: pytest need not write each a
    second time.
    """
    session.config.pluginmanager.get_plugin("logging-plugin").report_handler.setLevel(
        logging.CRITICAL + 1
    )


def pytest_collection_finish():
    """moto and botocore are large. What was imported stays, so the collector need not look
    through it again.
    """
    gc.freeze()
    gc.set_threshold(500_000)  # a request makes thousands of objects, and few cycles
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    """A machine that lacks something must not look as if everything had been tried."""
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for where, reason in _MISSING:
        if count := sum(reason in text for text in skipped):
            terminalreporter.write_line(f"{count} tests {where} were skipped: {reason}.")


@pytest.fixture(scope="session")
def aws() -> Iterator[Sandbox]:
    """The one sandbox of this process: moto keeps its state in globals, so a second one would
    share it.
    """
    from sandbox.identity import Identities  # noqa: PLC0415

    # with moto, which takes a second that tests without AWS need not wait
    from sandbox.server import Sandbox  # noqa: PLC0415

    Identities.open_session = (
        logged_secrets.noting(  # the broker's own too, and those of other processes
            "a session",
            Identities.open_session,
            lambda session: [session.secret_access_key, session.token],
        )
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
            for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE"):
                patch.delenv(f"AWS_{name}", raising=False)
            for name, value in given.items():
                patch.setenv(name, value)
            yield sandbox


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The one browser of this process; a test opens a context, or a page, of its own and closes
    it.
    """
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        # What moves is painted sixty times a second for as long as a test waits.
        still = "--force-prefers-reduced-motion"
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", still])
        yield started
        started.close()


@pytest.fixture(scope="session")
def vendor(aws) -> VendorStack:
    """The vendor's side, as broker.yaml and broker-region.yaml make it."""
    deployed = deploy_vendor(aws.url, BROKER_TEMPLATE.read_text(), _VENDOR)
    deployed = deploy_regions(aws.url, REGION_TEMPLATE.read_text(), deployed, _VENDOR)
    aws.use_vendor(deployed)
    return deployed


@pytest.fixture(scope="session")
def canary_stack(aws, vendor) -> VendorStack:
    """The vendor's side with the canary and the stranger, as canary.yaml makes them; no service
    uses them by itself.
    """
    return deploy_canary(aws.url, CANARY_TEMPLATE.read_text(), vendor, _VENDOR)


@pytest.fixture
def faults(aws) -> Iterator[object]:
    """AWS's bad days; over at the end of the test."""
    yield aws.faults
    aws.faults.clear()


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with new_database() as url:
        yield url


@pytest.fixture(scope="session")
def config(database_url) -> Config:
    return make_config(database_url)


def make_config(database_url, **changes):
    secret_keys = (
        "first-secret-key-of-the-tests-0123456789",
        "older-secret-key-of-the-tests-0123456789",
    )
    config = Config.of(
        database_url=database_url,
        secret_keys=secret_keys,
        broker=Broker.parse(f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker"),
        vendor_account_ids=frozenset({VENDOR_ACCOUNT, OTHER_VENDOR_ACCOUNT}),
        vendor_name="Example Vendor",
        return_urls=return_urls("https://app.example.com/aws"),
        template_bucket=f"deputy-templates-{VENDOR_ACCOUNT}",
        region="us-east-1",
    )
    config = with_settings(config, **changes)
    for secret in (*config.database.secret_keys, make_url(database_url).password or ""):
        logged_secrets.note("a setting", secret)
    return config


def with_settings(config, **changes):
    """The same configuration with these changes, by the names of the settings."""
    values = {"likely_mistakes": config.likely_mistakes}
    for name in groups_of(Config):
        group = getattr(config, name)
        values |= {part.name: getattr(group, part.name) for part in fields(group)}
    return Config.of(**values | changes)


@pytest.fixture(scope="session")
def app(aws, vendor, config) -> Iterator[Flask]:
    application = create_app(config)
    application.testing = False  # exceptions become answers, as in production
    # Tests look at a page more often than people and browsers do; test_page_rate.py has the limit.
    rates = application.extensions["deputy"].rates
    rates._page._bucket = rates._pages._bucket = TokenBucket(1_000_000, 1)
    yield application
    application.extensions["deputy"].db.engine.dispose()


@pytest.fixture(scope="session")
def admin(app) -> Api:
    """The vendor's key with every scope."""
    _, text = app.extensions["deputy"].api_keys.create_key(
        OPERATOR, name="tests' admin", scopes=ALL_SCOPES, tenant_id=None, expires_at=None
    )
    return Api(app, text)


@pytest.fixture
def start(config, monkeypatch) -> Iterator[Callable[..., Flask]]:
    """`start({"AWS_…": …}, max_session_seconds=…)`: another process of the service, in that
    environment (None: unset).
    """
    started = []

    def begin(environment, **settings):
        for name, value in environment.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        app = create_app(with_settings(config, **settings))
        app.testing = False
        started.append(app)
        return app

    yield begin
    for app in started:
        services = app.extensions["deputy"]
        services.db.engine.dispose()
        services.issuer._sts._api._pool.close()


@contextmanager
def as_the_pipeline():
    """With credentials that may write to the template bucket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        patch.setenv("AWS_ACCESS_KEY_ID", VENDOR_ACCOUNT)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
        yield


def publish_templates(app):
    """As the vendor's deploy pipeline and a background worker do it: one writes to the bucket,
    and one records.
    """
    services = app.extensions["deputy"]
    with as_the_pipeline():
        services.publication.publish()
    assert services.onboarding.versions.record_published(services.publication.serves)


@pytest.fixture
def world(aws, admin) -> World:
    """Makes tenants, customers' accounts, roles and connections, the way real people would."""
    return World(aws, admin)


@pytest.fixture
def customer(aws) -> Customer:
    return Customer(aws)


Event.row = checking(Event.row)
# Before a service is made
refusal_events.REFUSALS_OF_TENANT = refusal_events.REFUSALS_OF_TENANT._replace(most=1_000_000)
schedule_key_uses = KeyUses._schedule
# A minute later, and when the process ends, the test's database is gone
KeyUses._schedule = lambda _: None


@pytest.fixture(autouse=True)
def every_refusal_is_recorded_singly(monkeypatch) -> None:
    """Tests share keys, and are refused more in a second than a program in life;
    test_refusal_events.py has the bounds.
    """
    for name in ("REFUSALS", "REFUSALS_OF_KEY"):
        limit = getattr(refusal_events, name)
        monkeypatch.setattr(refusal_events, name, limit._replace(most=1_000_000))


def _note_what_is_issued():
    for kind, place, name, secrets_of in (
        ("an API key", api_keys, "_add", lambda made: [made[1][-43:]]),
        ("an onboarding link", Links, "create", lambda made: [made[1].rpartition("/")[2]]),
        # Its MAC
        ("a registration token", RegistrationTokens, "make", lambda token: [token[-24:]]),
        ("a session", sts, "_session", lambda made: [made.secret_access_key, made.session_token]),
    ):
        setattr(place, name, logged_secrets.noting(kind, getattr(place, name), secrets_of))


_note_what_is_issued()


class StoppedClock:
    """What limits are counted by: the middle of a second, and of a minute, until it is moved."""

    def __init__(self):
        self._passed = 0.0

    def move(self, seconds):
        self._passed += seconds

    def monotonic(self):
        return 1_000_000.5 + self._passed

    def now(self):
        return datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC) + timedelta(seconds=self._passed)

    sleep = staticmethod(time.sleep)


@pytest.fixture
def stopped_clock(monkeypatch) -> StoppedClock:
    clock, reserve, mask = StoppedClock(), TokenBucket.reserve, new_id().int

    def reserve_apart(bucket, subject, **options):
        """Reserve for another subject, because other tests use this bucket by other clocks."""
        return reserve(bucket, UUID(int=subject.int ^ mask), **options)

    monkeypatch.setattr(TokenBucket, "reserve", reserve_apart)
    monkeypatch.setattr("app.limits.counting_in_memory.time", clock)
    monkeypatch.setattr("app.limits.counting_in_database.now", clock.now)
    return clock


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """What gives up on a caller after two seconds waits for a slow machine, and refusals of a
    tenant's share are not held.

    A test that is about either sets its own.
    """
    monkeypatch.setattr("app.issuing.issue._ANSWER_SECONDS", 60.0)
    monkeypatch.setattr("app.issuing.authorization._READ_SECONDS", 60.0)
    for name in ("tenant_share.pause", "tenant_share.rest", "counting_in_memory.pause"):
        monkeypatch.setattr(f"app.limits.{name}", lambda _: None)
