"""Issuing from the cache, over HTTP: the same session for the same question, and a record of its
own for each answer.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from uuid import UUID

import pytest
from limits import RateLimitItemPerHour

from app.api import credentials
from app.clock import now
from app.errors import StoreUnavailableError
from app.ids import Grant, RoleArn, new_external_id, new_id
from app.issuing import issue as issuing
from app.issuing.authorization import VerifiedConnection
from app.issuing.session_cache import CacheKey
from app.limits.counting_in_memory import Rates
from tests.attacks.evidence import problem
from tests.conftest import OPERATOR
from tests.support.cast import SESSION_NAME, Customer
from tests.support.rows import ADMIN, Role, place
from tests.support.waiting import until

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}],
}


class Scene:
    """A verified connection to a role that is there, and its worker."""

    def __init__(self, world, role):
        services = world.admin.app.extensions["deputy"]
        made = place(services, role)
        self.world = world
        self.tenant_id, self.connection_id = made.tenant_id, made.connection_id
        self.path, self.role_arn = made.path(), role.arn
        self.container_path = made.path("/container-credentials")
        self.worker = world.admin.with_key(made.key)
        self._before = len(world.calls_for(role.arn))

    def issue(self, body=None, *, by=None, **options):
        options |= {} if body is None else {"body": body}
        return (by or self.worker)("POST", self.path, **options)

    def container(self, *, by=None, **options):
        return (by or self.worker)("GET", self.container_path, **options)

    @property
    def calls(self):
        """What AWS has been asked for since this began."""
        return self.world.calls_for(self.role_arn)[self._before :]

    @property
    def session_names(self):
        return [call.session_name for call in self.calls]

    @property
    def events(self):
        """Oldest first."""
        issued = {"connection_id": self.connection_id, "action": "credentials.issued"}
        return self.world.audit(**issued)[::-1]

    @property
    def first_hand_outs(self):
        """By each web process, of each session that was handed out; oldest first."""
        firsts = []
        for session in {event["details"]["access_key_id"] for event in self.events}:
            firsts += self.world.audit(access_key_id=session)
        return sorted(firsts, key=lambda event: event["id"])

    @property
    def sources(self):
        return [event["details"]["source"] for event in self.events]


@pytest.fixture(scope="module")
def role(app, aws, vendor, config) -> Role:
    return Role.of(Customer(aws), config.aws.broker.arn, app.extensions["deputy"])


@pytest.fixture
def scene(world, role) -> Scene:
    return Scene(world, role)


# --- whose session ---


def test_the_second_request_is_served_from_the_cache_and_recorded_as_such(scene):
    path, body = scene.path, {"reason": "nightly scan"}
    mine = {"X-Request-Id": "mine"}
    answers = [scene.worker.raw("POST", path, body, headers=mine) for _ in range(3)]
    first = answers[0].get_json()
    assert [answer.get_json() for answer in answers] == [first] * 3
    assert scene.sources == ["sts", "cache", "cache"]
    request_ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert [event["request_id"] for event in scene.events] == request_ids
    assert len({"mine", *request_ids}) == 4
    assert len(scene.session_names) == 1
    key_id = re.fullmatch(SESSION_NAME, scene.session_names[0])[1]  # as a proof's name is written
    details = {
        "reason": "nightly scan",
        "access_key_id": first["AccessKeyId"],
        "session_name": scene.session_names[0],
        "duration_seconds": 3600,
    }
    for event in scene.events:
        assert event["outcome"] == "ok"
        assert event["tenant_id"] == str(scene.tenant_id)
        assert event["actor"]["kind"] == "api_key"
        assert UUID(event["actor"]["id"]).hex == key_id
        assert event["details"].items() >= details.items()
        assert event["details"]["expires_at"].startswith(first["Expiration"].rstrip("Z"))
    assert scene.first_hand_outs == scene.events[:1]


def test_a_session_whose_first_hand_out_was_not_recorded_is_found_by_the_next(
    scene, app, monkeypatch
):
    log = app.extensions["deputy"].audit
    append, attempts = log.append, iter(["the database is away", "something was revoked"])

    def fail_twice(event, **options):
        attempt = next(attempts, None)
        if attempt == "the database is away":
            raise StoreUnavailableError(attempt)
        return attempt is None and append(event, **options)

    monkeypatch.setattr(log, "append", fail_twice)
    problem(scene.worker.raw("POST", scene.path), 503, "unavailable")
    scene.issue(), scene.issue()
    assert scene.sources == ["cache", "cache"]
    assert scene.first_hand_outs == scene.events[:1]


def test_a_process_that_forgot_its_sessions_indexes_them_once_more(scene, monkeypatch):
    monkeypatch.setattr(issuing, "_INDEXED_MAX", 1)
    for _ in range(2):
        scene.issue(), scene.issue({"duration_seconds": 900})
    assert scene.first_hand_outs == scene.events


def test_another_question_gets_another_session(scene):
    narrower = POLICY | {"Statement": [POLICY["Statement"][0] | {"Resource": "arn:aws:s3:::one"}]}
    questions = [
        None,
        {"duration_seconds": 900},
        {"session_policy": POLICY},
        {"session_policy": narrower},
        {"session_policy": POLICY, "duration_seconds": 900},
    ]
    first = [scene.issue(question)["AccessKeyId"] for question in questions]
    assert len(set(first)) == len(questions)
    assert [scene.issue(question)["AccessKeyId"] for question in questions] == first
    assert scene.sources == ["sts"] * 5 + ["cache"] * 5
    policies = [call.policy for call in scene.calls]
    compact = [json.dumps(policy, separators=(",", ":")) for policy in (POLICY, narrower)]
    assert policies == [None, None, *compact, compact[0]]


def test_the_same_question_in_other_words_gets_the_same_session(scene):
    first = scene.issue()
    for body in ({}, {"reason": "nightly scan", "duration_seconds": 3600}):
        assert scene.issue(body) == first, body
        assert scene.events[-1]["details"]["reason"] == body.get("reason")
    first = scene.issue({"session_policy": POLICY})
    assert scene.issue({"session_policy": json.dumps(POLICY, indent=2)}) == first


GRANT = Grant(
    RoleArn.parse("arn:aws:iam::444455556666:role/deputy-one"), new_external_id(), new_id()
)
ISSUABLE = {
    "tenant_id": new_id(),
    "connection_id": new_id(),
    "version": 1,
    "grant": GRANT,
    "role_unique_id": "AROAX",
    "permission_sets": frozenset({"inventory"}),
    "external_id_id": new_id(),
    "tenant_resumed_at": None,
    "proven_until": 0.0,
}


def test_everything_that_an_answer_depends_on_is_in_the_question():
    """One by one, where life would change several at once."""

    def question(key_id=ADMIN.key_id, duration_seconds=3600, policy=None, **of_connection):
        connection = VerifiedConnection(**ISSUABLE | of_connection)
        return CacheKey.of(connection, key_id, duration_seconds, policy).text

    assert question() == question()
    other_role = RoleArn.parse("arn:aws:iam::444455556666:role/deputy-two")
    for change in (
        {"tenant_id": new_id()},
        {"connection_id": new_id()},
        {"version": 2},
        {"tenant_resumed_at": now()},
        {"grant": replace(GRANT, external_id=new_external_id())},
        {"grant": replace(GRANT, role_arn=other_role)},
        {"role_unique_id": "AROAY"},
        {"role_unique_id": None},
        {"key_id": new_id()},
        {"duration_seconds": 900},
        {"policy": "{}"},
        {"policy": ""},
    ):
        assert question(**change) != question(), change


# --- the shapes ---


def headers_of(response):
    return {name: value for name, value in response.headers.items() if name != "X-Request-Id"}


def test_every_answer_of_a_session_is_what_its_schema_says(scene, app):
    """Compare answers header by header: from AWS or the cache, with and without Flask."""
    key, issuer = scene.worker.key, app.extensions["deputy"].issuer
    bare, by_flask = {"Authorization": key}, {"Authorization": f"bearer {key}"}
    for method, path, schema, forms in (
        ("POST", scene.path, credentials.ProcessCredentials(), [{}, {}, by_flask]),
        ("GET", scene.container_path, credentials.ContainerCredentials(), [{}, by_flask, bare]),
    ):
        answers = [scene.worker.raw(method, path, headers=headers) for headers in forms]
        principal = app.extensions["deputy"].api_keys.authenticate(key, None)
        ids = scene.tenant_id, scene.connection_id
        session, role_arn = issuer.issue(principal, *ids)
        key_id, secret, token, expires_at, account_id, *_ = astuple(session)
        values = [key_id, secret, token, f"{expires_at:%Y-%m-%dT%H:%M:%SZ}", account_id]
        values = [1, *values] if method == "POST" else [*values, role_arn]
        expected = dict(zip(schema.fields, values, strict=True))
        for answer in answers:
            assert answer.status_code == 200
            assert list(answer.get_json().items()) == list(expected.items())
            assert headers_of(answer) == headers_of(answers[0])
            assert len(answer.headers["X-Request-Id"]) == 32
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert scene.sources == ["sts"] + ["cache"] * 7


def test_container_credentials_take_nothing_from_a_body(scene):
    first = scene.container()
    assert scene.container(body={"duration_seconds": 900}) == first
    assert scene.events[-1]["details"]["duration_seconds"] == 3600


# --- while something is taken away from somebody else ---


def elsewhere(app):
    """Take something away from somebody who has nothing to do with the test."""
    services = app.extensions["deputy"]
    other = place(services)
    return lambda: services.api_keys.revoke_key(OPERATOR, other.key_id)


def test_an_answer_of_awss_is_recorded_as_one_though_the_record_had_to_be_tried_twice(
    scene, app, monkeypatch
):
    """AWS was asked for this very answer, even if another tenant's change came before it was
    recorded.
    """
    take_away, record, done = elsewhere(app), issuing.CredentialIssuer._record, []

    def meanwhile(*args):
        if not done:
            done.append(take_away())
        return record(*args)

    monkeypatch.setattr(issuing.CredentialIssuer, "_record", meanwhile)
    scene.issue()
    assert done
    assert len(scene.session_names) == 1
    assert scene.sources == ["sts"]


def test_a_request_counts_once_though_its_record_had_to_be_tried_twice(scene, app, monkeypatch):
    scene.issue(), scene.issue()
    elsewhere(app)()
    count, counted = Rates.acquire_issuance, []

    def counting(self, caller, tenant_id):
        counted.append(caller.request_id)
        count(self, caller, tenant_id)

    monkeypatch.setattr(Rates, "acquire_issuance", counting)
    scene.issue()
    assert len(counted) == 1


# --- many at once, and a slow AWS ---


def test_a_slow_aws_is_a_503_in_time_and_its_answer_there_for_the_next(scene, faults, monkeypatch):
    monkeypatch.setattr("app.issuing.issue._ANSWER_SECONDS", 0.4)
    monkeypatch.setattr("app.aws.query_api.PAUSE", 0)
    # And then it answers
    faults.add("timeout", role_arn=scene.role_arn, seconds=0.8, times=1)
    response = scene.worker.raw("POST", scene.path)
    assert problem(response, 503, "aws_unavailable")
    assert int(response.headers["Retry-After"]) >= 1
    assert scene.events == []
    until(lambda: "allowed" in {c.outcome for c in scene.calls[-1:]})
    monkeypatch.undo()
    scene.issue()
    assert len(scene.session_names) == 2, "the one that hung, and boto's second try"
    assert scene.sources == ["cache"]
    assert scene.first_hand_outs == scene.events


# --- with a cache that processes share ---


def test_two_processes_share_a_session_until_one_of_them_takes_it_away(scene, start_api):
    one, two = (start_api().with_key(scene.worker.key) for _ in range(2))
    first = scene.issue(by=one)
    assert scene.issue(by=two) == first
    assert scene.container(by=two)["AccessKeyId"] == first["AccessKeyId"]
    assert scene.sources == ["sts", "cache", "cache"]
    assert scene.first_hand_outs == scene.events[:2]
    assert len(scene.session_names) == 1
    one.with_key(scene.world.admin.key)(
        "POST", scene.path.replace("credentials", "suspend"), {"reason": "x"}
    )
    for api in (one, two):
        problem(api.raw("POST", scene.path), 409, "suspended")
    assert len(scene.events) == 3


def admitted(apis, path, each):
    """How many of so many requests at each process were."""

    def ask(api):
        return [api.raw("POST", path).status_code for _ in range(each)].count(200)

    with ThreadPoolExecutor(len(apis)) as pool:
        return sum(pool.map(ask, apis))


RATE = 20


def test_the_rate_of_a_key_is_counted_over_all_processes_and_by_each_while_the_cache_is_away(
    scene, stopped_clock, start_api, valkey, monkeypatch
):
    """Valkey's clock can't be stopped, so there the limit is one for an hour."""
    monkeypatch.setattr(
        "app.cache.shared_cache._item", lambda _, window: RateLimitItemPerHour(window[0])
    )
    one, two = (start_api(issue_rate=RATE).with_key(scene.worker.key) for _ in range(2))
    for api in (one, two):
        scene.issue(by=api)
    path = scene.path
    served = admitted([one, two], path, RATE)
    assert served == RATE - 2, "as many as one process would admit; each had one before"
    valkey.kill()
    stopped_clock.move(60)
    assert admitted([one, two], path, 2 * RATE) == 2 * RATE
    response = one.raw("POST", path)
    problem(response, 429, "rate_limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 2
