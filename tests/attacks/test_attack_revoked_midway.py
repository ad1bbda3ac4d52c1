"""A key or a link is revoked while its request is under way: after it was admitted, and before
anything is written.

Somebody who has a key that is about to be revoked sends a header and holds the body back. Every use
case that writes is walked here, through the routes: each must succeed with a live key, and change
nothing with one that was just revoked.
"""

import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import pytest

from app.identity.api_keys import ApiKeys
from app.identity.scopes import ALL_SCOPES
from app.issuing.authorization import Authorization
from app.onboarding.page_links import Links
from app.store.models.base import Base
from tests.attacks.conftest import in_another_thread
from tests.attacks.evidence import problem
from tests.attacks.routes import ROUTES
from tests.support.cast import Api, Customer, path_of
from tests.support.waiting import until, waiting_for_locks

REASON, SPARE = {"reason": "an incident"}, {"name": "spare", "scopes": ["audit:read"]}
WRITING = [route for route in ROUTES if route.method != "GET"]
# What no caller changes: the log of what happened, counts of attempts, and the revocation counter,
# which the revocation moves.
NOT_STATE = {"audit_events", "quota_uses", "configuration"}


def rows(world):
    """Everything that is stored, but for what a refusal may leave. PostgreSQL knows how many rows
    there are, and which transaction changed one last.
    """
    tables = Base.metadata.tables.keys() - NOT_STATE
    latest = "count(*), max(CAST(CAST(xmin AS text) AS bigint))"
    with world.services.db.read() as db:
        each = [f"SELECT '{name}', {latest} FROM {name}" for name in tables]  # noqa: S608
        found = db.connection().exec_driver_sql(" UNION ALL ".join(each))
        return {name: (count, last) for name, count, last in found}


class Case:
    """What every route needs to succeed, and a key that is about to be revoked."""

    def __init__(self, world):
        self.world = world
        self.tenant = world.tenant()
        self.key = self.made(*ALL_SCOPES)

    @cached_property
    def connection(self):
        return self.world.connection(self.tenant)

    @cached_property
    def link(self):
        return self.world.admin(
            "POST", f"/v1/tenants/{self.tenant['id']}/onboarding-links", {}, expect=201
        )

    @cached_property
    def endpoint(self):
        wanted = {"url": "https://93.184.215.14/", "types": ["*"]}
        return self.world.admin("POST", "/v1/webhook-endpoints", wanted, expect=201)

    def delivery(self):
        path = f"/v1/webhook-endpoints/{self.endpoint['id']}"
        self.world.admin("POST", f"{path}/test", {}, expect=202)
        return self.world.admin("GET", f"{path}/deliveries")["items"][0]["id"]

    @property
    def page(self):
        return re.sub("^.*(?=/onboard/)", "", self.link["url"])

    def made(self, *scopes):
        wanted = {"name": "a program", "scopes": list(scopes)}
        return self.world.admin("POST", "/v1/api-keys", wanted, expect=201)

    def search(self):
        """The id of a connection whose role is only looked for."""
        path, body = (
            f"/v1/tenants/{self.tenant['id']}/connections",
            {"account_id": Customer(self.world.aws).account},
        )
        return self.world.admin("POST", path, body, expect=201)["id"]

    def path(self, route):
        """The route's path, with everything there that it acts on."""
        makes = {
            "connection_id": lambda: self.connection["id"],
            "key_id": lambda: self.made("audit:read")["id"],
            "link_id": lambda: self.link["id"],
            "endpoint_id": lambda: self.endpoint["id"],
            "delivery_id": self.delivery,
        }
        ids = {name: make() for name, make in makes.items() if f"{{{name}}}" in route.path}
        path = route.at(tenant_id=self.tenant["id"], **ids)
        ends_rotation = route.method == "DELETE" and path.endswith("/rotation")
        if ends_rotation or path.endswith("/complete"):
            # No connection of it waits
            path = path.replace(self.tenant["id"], self.world.tenant()["id"])
            self.world.admin("POST", path.removesuffix("/complete"), REASON, expect=201)
        if path.endswith("/approve"):
            path = path_of(self.world.awaiting_approval(self.tenant), "/approve")
        if path.endswith("/resume"):
            self.world.admin("POST", path.replace("/resume", "/suspend"), REASON)
        return path

    def delete(self, path):
        """What is stored from then on."""
        self.world.admin.with_key(self.world.admin.key)("DELETE", path, expect=204)
        return rows(self.world)

    def revoke(self):
        return self.delete(f"/v1/api-keys/{self.key['id']}")

    def revoke_link(self):
        return self.delete(f"/v1/tenants/{self.tenant['id']}/onboarding-links/{self.link['id']}")

    def api(self):
        return self.world.admin.with_key(self.key["key"])


@pytest.fixture
def case(world) -> Case:
    return Case(world)


@pytest.fixture
def admitted(monkeypatch) -> Callable[[str, Callable[[], Any]], list[Any]]:
    """`admitted(text, act)`: once this key or link was let in, somebody does `act` and gets done.
    Holds what it returned.
    """

    def arrange(text, act):
        happened = []
        for kind, name in (
            (ApiKeys, "authenticate"),
            (Authorization, "authenticate"),
            (Links, "open"),
        ):
            inner = getattr(kind, name)

            def then(self, given, *more, _inner=inner):
                found = _inner(self, given, *more)
                if given == text and not happened:
                    happened.append(None)
                    happened[0] = in_another_thread(act)
                return found

            monkeypatch.setattr(kind, name, then)
        return happened

    return arrange


class Held(io.RawIOBase):
    """A body that comes only after somebody has acted."""

    def __init__(self, body, act):
        self._body, self._act = io.BytesIO(json.dumps(body).encode()), act
        self.happened: list[Any] = []

    def sent(self):
        """What makes a request carry it."""
        length = str(len(self._body.getvalue()))
        environ = {"wsgi.input": self, "CONTENT_LENGTH": length, "CONTENT_TYPE": "application/json"}
        return {"environ_overrides": environ}

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.happened:
            self.happened.append(in_another_thread(self._act))
        return self._body.readinto(buffer)


# --- keys ---


@pytest.mark.parametrize("route", WRITING, ids=str)
def test_a_key_that_is_revoked_once_it_was_admitted_changes_nothing(case, admitted, route):
    """A live key then does, or the refusal would prove nothing."""
    path = case.path(route)
    happened = admitted(case.key["key"], case.revoke)
    problem(route.send(case.api(), path), 401, "unauthenticated")
    assert rows(case.world) == happened[0]
    assert all(e["outcome"] != "ok" for e in case.world.audit(api_key_id=case.key["id"]))
    response = route.send(case.world.admin, path)
    assert response.status_code < 300, response.text


def test_a_key_that_is_revoked_before_its_body_arrives_changes_nothing(case):
    """The body is read at one place, after the key."""
    route = next(route for route in WRITING if route.path.endswith("/suspend"))
    body = Held(route.body, case.revoke)
    response = case.api().raw(route.method, case.path(route), **body.sent())
    problem(response, 401, "unauthenticated")
    assert rows(case.world) == body.happened[0]


def test_a_key_that_expires_by_hand_meanwhile_makes_no_key(case, by_hand):
    expire = "UPDATE api_keys SET expires_at = '2020-01-01 00:00:00' WHERE lookup = :digits"
    body = Held(SPARE, partial(by_hand, expire, digits=case.key["key"][4:20]))
    response = case.api().raw("POST", "/v1/api-keys", **body.sent())
    problem(response, 401, "unauthenticated")


def test_a_bound_key_whose_tenant_is_deleted_meanwhile_changes_nothing(case, admitted):
    bound = case.world.key(*ALL_SCOPES, tenant=case.tenant)
    admitted(bound.key, partial(case.delete, f"/v1/tenants/{case.tenant['id']}"))
    problem(bound.raw("POST", "/v1/api-keys", SPARE), 401, "unauthenticated")


# --- links ---

FORMS = ("/connections", "/connections/{connection_id}/verify", "/connections/{connection_id}/stop")
PROVING, OWN = FORMS[:2], "same-origin"


def test_every_form_of_the_onboarding_page_is_walked_here(case):
    forms = {
        re.sub(r"<uuid:(\w+)>", r"{\1}", rule.rule).removeprefix("/onboard/<token>")
        for rule in case.world.admin.app.url_map.iter_rules()
        if rule.rule.startswith("/onboard") and "POST" in (rule.methods or ())
    }
    assert forms == set(FORMS)


@pytest.fixture
def send(case) -> Iterator[Callable[[str], Any]]:
    """Sends a form of the page, as a browser does."""
    page, connection, numbers = case.page, case.connection, itertools.count()

    def form(what):
        connection_id = case.search() if "/stop" in what else connection["id"]
        data = {"role_arn": f"arn:aws:iam::123456789012:role/deputy-mallory-{next(numbers)}"}
        path, headers = page + what.format(connection_id=connection_id), {"Sec-Fetch-Site": OWN}
        return Api(case.world.admin.app, None).raw("POST", path, data=data, headers=headers)

    return form


@pytest.mark.parametrize("what", FORMS)
def test_a_link_that_is_revoked_once_it_was_opened_changes_nothing(case, send, admitted, what):
    assert send(what).status_code == 303, "a live one does"
    happened = admitted(case.page.removeprefix("/onboard/"), case.revoke_link)
    assert send(what).status_code == 404
    assert rows(case.world) == happened[0]


@pytest.mark.parametrize("what", PROVING)
def test_a_link_that_is_revoked_while_aws_is_asked_stores_no_proof(case, send, meanwhile, what):
    happened = meanwhile("probe_own", case.revoke_link)
    assert send(what).status_code == 404
    assert rows(case.world)["proofs"] == happened[0]["proofs"]


def test_a_key_that_is_revoked_while_aws_is_asked_stores_no_proof(case, meanwhile):
    path = path_of(case.connection, "/verify")
    happened = meanwhile("probe_own", case.revoke)
    problem(case.api().raw("POST", path), 401, "unauthenticated")
    assert rows(case.world) == happened[0]


# --- both ---


@pytest.mark.parametrize("who", ["key", "link"])
def test_a_revocation_waits_for_what_is_being_written(case, who):
    """Or it would have been answered before the change that it was to prevent."""
    services = case.world.services
    if who == "key":
        principal, revoke = services.api_keys.authenticate(case.key["key"], None), case.revoke
    else:
        page = services.links.open(case.page.removeprefix("/onboard/"), None)
        principal, revoke = page.principal, case.revoke_link
    with ThreadPoolExecutor(1) as pool:
        with services.db.write(principal):
            revoking = pool.submit(revoke)
            until(lambda: waiting_for_locks(services.db) or revoking.done())
            assert not revoking.done()
        revoking.result(timeout=60)
