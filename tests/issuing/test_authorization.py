"""Memory never outlives the truth: what another process takes away is not issued on, however
warm this one is.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy
import time_machine
from sqlalchemy import select

from app.audit.log import AuditLog
from app.clock import now
from app.errors import (
    AppError,
    ConnectionNotVerifiedError,
    ProofExpiredError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from app.identity.key_text import generate_key
from app.identity.key_uses import KeyUses
from app.identity.scopes import Scope
from app.ids import new_id
from app.issuing import issue as issuing
from app.issuing.authorization import Authorization
from app.services import Services
from app.store.models import AuditEvent, ConnectionStatus, Trigger
from app.store.revocation import RevocationLog
from tests.attacks.evidence import case, problem
from tests.conftest import OPERATOR
from tests.support.cast import Api, Customer
from tests.support.flights import joins
from tests.support.rows import ADMIN, Role, at_once, connection_row, place, statements, tenant_row
from tests.support.waiting import until


@pytest.fixture(scope="module")
def here(app) -> Services:
    """This process, whose memory is warm."""
    return app.extensions["deputy"]


@pytest.fixture(scope="module")
def there(here, config) -> Iterator[Services]:
    """Another process, on another machine."""
    made = Services(config)
    yield made
    made.db.engine.dispose()


@pytest.fixture(scope="module")
def role(here, aws, vendor, config) -> Role:
    return Role.of(Customer(aws), config.aws.broker.arn, here)


class Warm:
    """A worker that has just been given credentials, from this process's memory and cache."""

    def __init__(self, app, role, aws, made):
        self.place = made
        self.api = Api(app, made.key)
        self._role, self._aws = role, aws
        self._db = app.extensions["deputy"].db
        for _ in range(2):
            assert self.ask().status_code == 200

    def ask(self, **options):
        return self.api.raw("POST", self.place.path(**options))

    @property
    def calls(self):
        return len([call for call in self._aws.sts_calls if call.role_arn == self._role.arn])

    @property
    def events(self):
        """Action and code of all that its key has done, oldest first."""
        query = (
            select(AuditEvent)
            .where(AuditEvent.actor_id == str(self.place.key_id))
            .order_by(AuditEvent.id)
        )
        with self._db.read() as db:
            return [(event.action, event.details.get("code")) for event in db.scalars(query)]

    @property
    def issued(self):
        return self.events.count(("credentials.issued", None))


@pytest.fixture
def warm_up(app, here, role, aws):
    """`warm_up()`: another tenant with a connection and a warm worker."""
    return lambda **options: Warm(app, role, aws, place(here, role, **options))


@pytest.fixture
def warm(warm_up) -> Warm:
    return warm_up()


def ids(made):
    return made.tenant_id, made.connection_id


# --- taken away by others ---


def insecure(there, place):
    """The role of these tests accepts strangers, so the verdict is real."""
    found = there.verification.verify(ADMIN, *ids(place), trigger=Trigger.REQUESTED)
    assert found.status is ConnectionStatus.INSECURE


UNAUTHENTICATED, NOT_FOUND, SUSPENDED = (
    (401, "unauthenticated"),
    (404, "not_found"),
    (409, "suspended"),
)
NOT_VERIFIED = (409, "connection_not_verified")
# What another process does, whether the worker's key is bound, and the refusal
BY_SERVICES = {
    "key revoked": (
        lambda there, place: there.api_keys.revoke_key(ADMIN, place.key_id),
        True,
        UNAUTHENTICATED,
    ),
    "tenant suspended": (
        lambda there, place: there.tenants.suspend(ADMIN, place.tenant_id, reason="x"),
        True,
        SUSPENDED,
    ),
    "tenant deleted": (
        lambda there, place: there.tenants.delete(ADMIN, place.tenant_id),
        True,
        UNAUTHENTICATED,
    ),
    "tenant of an unbound key deleted": (
        lambda there, place: there.tenants.delete(ADMIN, place.tenant_id),
        False,
        NOT_FOUND,
    ),
    "connection suspended": (
        lambda there, place: there.connections.suspend(ADMIN, *ids(place), reason="x"),
        True,
        SUSPENDED,
    ),
    "connection deleted": (
        lambda there, place: there.connections.delete(ADMIN, *ids(place)),
        True,
        NOT_FOUND,
    ),
    "found insecure": (insecure, True, NOT_VERIFIED),
}
KEY, CONNECTION = "UPDATE api_keys SET ", "UPDATE connections SET "
BY_HAND = {
    "key expired": (KEY + "expires_at = '2020-01-01 00:00:00' WHERE id = '{key}'", UNAUTHENTICATED),
    "key gone": ("DELETE FROM api_keys WHERE id = '{key}'", UNAUTHENTICATED),
    "key bound elsewhere": (KEY + "tenant_id = '{other}' WHERE id = '{key}'", NOT_FOUND),
    "scopes reduced": (KEY + "scope_bits = 1 WHERE id = '{key}'", (403, "forbidden")),
    "connection broken": (CONNECTION + "status = 'broken' WHERE id = '{connection}'", NOT_VERIFIED),
    "connection gone": ("DELETE FROM connections WHERE id = '{connection}'", NOT_FOUND),
    "another role pinned": (
        CONNECTION + "role_unique_id = 'AROAANOTHER' WHERE id = '{connection}'",
        NOT_VERIFIED,
    ),
}


def nothing_more_is_issued(warm, status, code):
    before, issued = warm.events, warm.issued
    problem(warm.ask(), status, code)
    told = warm.events[len(before) :]
    # Who is refused at the door has no name that the log could hold; found out later, it has.
    assert told[-1:] == [("credentials.refused", code)] or (status == 401 and told == [])
    problem(warm.ask(), status, code)
    problem(warm.api.raw("GET", warm.place.path("/container-credentials")), status, code)
    problem(warm.api.raw("POST", warm.place.path(), {"duration_seconds": 900}), status, code)
    assert warm.issued == issued


def test_what_another_process_takes_away_is_not_issued_on_and_others_read_nothing_again(
    warm, warm_up, there, here
):
    """Or one tenant that revokes its own keys without a pause would slow down issuing for all
    tenants.
    """
    losers = {what: warm_up(bound=bound) for what, (_, bound, _) in BY_SERVICES.items()}
    for what, loser in losers.items():
        BY_SERVICES[what][0](there, loser.place)
    with statements(here.db) as executed:
        for _ in range(2):
            assert warm.ask().status_code == 200
    assert executed == []
    for what, loser in losers.items():
        with case(what):
            calls = loser.calls
            nothing_more_is_issued(loser, *BY_SERVICES[what][2])
            assert loser.calls == calls


def written(warm, here, statement):
    """The statement, about this worker's rows."""
    return statement.format(
        key=warm.place.key_id.hex,
        connection=warm.place.connection_id.hex,
        other=tenant_row(here.db).hex,
    )


def test_what_is_revoked_by_hand_is_not_issued_on(warm_up, here, by_hand):
    for what, (statement, expected) in BY_HAND.items():
        with case(what):
            loser = warm_up()
            by_hand(written(loser, here, statement))
            nothing_more_is_issued(loser, *expected)


def test_a_key_that_expires_is_over_though_nothing_has_changed(by_hand, warm):
    soon = now().replace(microsecond=0) + dt.timedelta(minutes=5)
    by_hand(f"{KEY} expires_at = '{soon:%Y-%m-%d %H:%M:%S}' WHERE id = '{warm.place.key_id.hex}'")
    for _ in range(2):
        assert warm.ask().status_code == 200
    with time_machine.travel(soon - dt.timedelta(seconds=2), tick=False):
        assert warm.ask().status_code == 200
    with time_machine.travel(soon, tick=False):
        problem(warm.ask(), *UNAUTHENTICATED)


def test_old_memory_does_not_count_with_a_new_look_at_something_else(warm, app, here, there, aws):
    """An issuance is valid at the earlier of the counts of its key and its connection."""
    _, text = here.api_keys.create_key(
        OPERATOR,
        name="another",
        scopes=frozenset({Scope.CREDENTIALS_ISSUE}),
        tenant_id=warm.place.tenant_id,
    )
    there.connections.suspend(ADMIN, *ids(warm.place), reason="x")
    problem(Api(app, text).raw("POST", warm.place.path()), 409, "suspended")
    other_role = Role.of(Customer(aws), there.config.aws.broker.arn, there)
    other = connection_row(there.db, warm.place.tenant_id, other_role)
    there.api_keys.revoke_key(ADMIN, warm.place.key_id)
    issued = warm.issued
    path = f"/v1/tenants/{warm.place.tenant_id}/connections/{other}/credentials"
    problem(warm.api.raw("POST", path), 401, "unauthenticated")
    assert warm.issued == issued


@pytest.mark.parametrize("what", ["key gone", "connection broken"])
def test_a_look_in_whose_middle_something_is_revoked_is_not_believed(
    warm, here, config, by_hand, what
):
    """Right after the first of the reads, whichever that is; so the revocation counter must come
    first.
    """
    cold, (statement, (_, code)) = Services(config), BY_HAND[what]
    principal = cold.api_keys.authenticate(warm.place.key, None)
    if what == "connection broken":
        cold.authorization.authenticate(warm.place.key, None)
    statement, done = written(warm, here, statement), []

    def meanwhile(_connection, _cursor, query, *_):
        if not done and "SELECT" in query:
            done.append(query)
            by_hand(statement)

    sqlalchemy.event.listen(cold.db.engine, "after_cursor_execute", meanwhile)
    with pytest.raises(AppError) as caught:
        cold.issuer.issue(principal, *ids(warm.place))
    assert caught.value.code == code
    assert done
    assert warm.issued == 2
    cold.db.engine.dispose()


# --- issuing makes progress, however often others increment the revocation counter ---


@pytest.fixture
def restless(there, here, monkeypatch) -> list[Callable[[], None]]:
    """Another key is revoked between each look and its record. What is put here happens then
    too, the first time.
    """
    record, acts = issuing.CredentialIssuer._record, []

    def meanwhile(*args):
        there.api_keys.revoke_key(ADMIN, place(here).key_id)
        while acts:
            acts.pop()()
        return record(*args)

    monkeypatch.setattr(issuing.CredentialIssuer, "_record", meanwhile)
    return acts


def test_issuing_goes_on_though_others_revoke_keys_all_the_time(warm, restless, monkeypatch):
    stored, append = [], AuditLog.append
    monkeypatch.setattr(
        AuditLog, "append", lambda *args, **more: stored.append(append(*args, **more)) or stored[-1]
    )
    before = warm.events
    assert warm.ask().status_code == 200
    assert warm.events == [*before, ("credentials.issued", None)]
    assert stored == [True], "what others' rows lose costs no further round"


@pytest.mark.parametrize(
    "what", ["key revoked", "tenant suspended", "connection deleted"]
)  # one of each table
def test_what_is_revoked_amid_other_changes_is_not_issued_on(warm, there, restless, what):
    act, _, expected = BY_SERVICES[what]
    restless.append(lambda: act(there, warm.place))
    issued = warm.issued
    problem(warm.ask(), *expected)
    assert warm.issued == issued


def test_a_revoked_key_cannot_write_to_the_audit_log_with_bad_requests(warm, there):
    """Memory lets it in, and a request that never gets to the record never finds out."""
    there.api_keys.revoke_key(ADMIN, warm.place.key_id)
    before = len(warm.events)
    answers = [
        warm.api.raw("POST", warm.place.path(), {"no_such_field": number}).status_code
        for number in range(4)
    ]
    assert answers[-1] == 401
    assert len(warm.events) <= before + 1


# --- whose memory it is ---


def test_memory_filled_by_one_never_serves_a_key_that_is_bound_elsewhere(warm, warm_up):
    """As if it did not exist: status, body, and no call to AWS."""
    unbound, mallory = warm_up(bound=False), warm_up()
    calls = mallory.calls
    absent = f"/v1/tenants/{warm.place.tenant_id}/connections/{mallory.place.tenant_id}/credentials"
    bodies = []
    for path in (warm.place.path(), unbound.place.path(), absent):
        bodies.append(problem(mallory.api.raw("POST", path), 404, "not_found"))
        assert mallory.events[-1] == ("credentials.refused", "not_found")
    assert bodies[0] == bodies[1] == bodies[2]
    mixed = (
        f"/v1/tenants/{mallory.place.tenant_id}/connections/{warm.place.connection_id}/credentials"
    )
    assert problem(mallory.api.raw("POST", mixed), 404, "not_found") == bodies[0]
    assert mallory.calls == calls


# --- nothing negative is remembered ---


def test_what_was_not_there_is_looked_up_each_time(app, there, by_hand, role):
    text, made = generate_key(), place(there, role)
    anybody = Api(app, text)
    problem(anybody.raw("POST", made.path()), 401, "unauthenticated")
    counter = by_hand.counter
    there.api_keys.install_key(OPERATOR, text, name="just now")
    assert anybody.raw("POST", made.path()).status_code == 200
    pending = connection_row(
        there.db, made.tenant_id, role, number=2, status=ConnectionStatus.PENDING, verified_at=None
    )
    path = f"/v1/tenants/{made.tenant_id}/connections/{pending}/credentials"
    refused = problem(anybody.raw("POST", path), 409, "connection_not_verified")
    assert refused["detail"].startswith("This connection is not verified. Call verify"), (
        "nobody has to approve it"
    )
    by_hand(
        f"DELETE FROM connections WHERE id = '{made.connection_id.hex}'",  # noqa: S608
        f"UPDATE connections SET role_arn = '{role.arn}', status = 'verified',"  # noqa: S608
        f" verified_at = '{now():%Y-%m-%d %H:%M:%S}' WHERE id = '{pending.hex}'",
    )
    assert anybody.raw("POST", path).status_code == 200
    assert by_hand.counter == counter + 1, "for the one that had to make room"


# --- bounds ---


def test_a_process_remembers_so_many_keys_and_connections_and_no_more(
    database_url, here, monkeypatch
):
    monkeypatch.setattr("app.issuing.authorization._KEYS", 3)
    monkeypatch.setattr("app.issuing.authorization._CONNECTIONS", 4)
    authorization = Authorization(
        here.db, KeyUses(here.db), here.verification, here.rates, here.config
    )
    places = [place(here) for _ in range(6)]
    for _ in range(2):
        for made in places:
            caller = authorization.authenticate(made.key, None)
            assert (
                authorization.authorize_issuance(caller, ids(made))[1].tenant_id == made.tenant_id
            )
    sizes = sorted(
        len(memory._entries) for memory in (authorization._principals, authorization._connections)
    )
    assert sizes == [3, 4]


def test_a_proof_is_too_old_at_the_moment_that_proof_max_age_says(warm, here, monkeypatch):
    principal, end, renewed = (
        here.api_keys.authenticate(warm.place.key, None),
        now().timestamp(),
        [],
    )
    counter, connection = here.authorization.authorize_issuance(principal, ids(warm.place))

    def renew(connection_key, _patience):
        renewed.append(connection_key)
        raise ProofExpiredError("Too old.")

    monkeypatch.setattr(here.authorization, "renew_proof", renew)
    memory = here.authorization._connections
    memory.put(connection.key, (counter, replace(connection, proven_until=end)))
    monkeypatch.setattr("app.issuing.issue.timestamp", lambda: end - 0.001)
    assert warm.ask().status_code == 200
    assert renewed == []
    monkeypatch.setattr("app.issuing.issue.timestamp", lambda: end)
    problem(warm.ask(), 503, "proof_expired")
    assert renewed == [connection.key]


def test_proofs_of_two_connections_run_side_by_side(here, monkeypatch):
    running = threading.Barrier(2)
    monkeypatch.setattr(here.authorization, "_prove", lambda _: running.wait(30))
    jobs = [partial(here.authorization.renew_proof, (new_id(), new_id()), 60.0) for _ in range(2)]
    assert at_once(jobs) == [None, None]


def test_a_refusal_by_aws_makes_a_process_look_again(warm, here, role, faults):
    faults.add("deny", role_arn=role.arn, times=1)
    with statements(here.db) as executed:
        response = warm.api.raw("POST", warm.place.path(), {"duration_seconds": 1000})
        problem(response, 409, "role_refused")
        assert any("FROM connections" in statement for statement, _ in executed)
        executed.clear()
        assert warm.ask().status_code == 200
    assert executed == []


# --- a backup is restored ---


@pytest.mark.parametrize("what", ["key gone", "connection gone"])
def test_a_counter_that_went_back_and_came_again_does_not_revive_old_memory(
    warm, warm_up, here, by_hand, what
):
    """Restored from a backup while the processes run: the same number, and not the same world."""
    neighbour, (statement, expected) = warm_up(), BY_HAND[what]
    assert warm.ask().status_code == 200
    by_hand("UPDATE configuration SET revocation_counter = revocation_counter - 1")
    assert neighbour.ask().status_code == 200
    by_hand(written(warm, here, statement))
    assert neighbour.ask().status_code == 200
    problem(warm.ask(), *expected)


# --- many at once who remember nothing ---


class Held:
    """The first look of a process at some table, which is held up until it is told to go on."""

    def __init__(self, cold, table):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._table, self._first = table, threading.Lock()
        sqlalchemy.event.listen(cold.db.engine, "after_cursor_execute", self._hold)

    def _hold(self, _connection, _cursor, statement, *_):
        if f"FROM {self._table}" in statement and self._first.acquire(blocking=False):
            self.begun.set()
            assert self.go_on.wait(60)


@pytest.fixture
def cold(here, config) -> Iterator[Services]:
    made = Services(config)
    yield made
    # A look may go on for longer than who asked for it
    until(lambda: made.db.engine.pool.checkedout() == 0)
    made.db.engine.dispose()


def test_a_crowd_that_wants_the_same_looks_once(cold, warm, by_hand):
    cold.authorization.set_history(RevocationLog(by_hand.counter))  # tests above have put it back
    place = warm.place

    def issue():
        caller = cold.authorization.authenticate(place.key, None)
        return cold.authorization.authorize_issuance(caller, ids(place))

    with statements(cold.db) as executed:
        found = at_once([issue] * 12)
    assert len({connection.connection_id for _, connection in found}) == 1
    looks = [statement for statement, _ in executed if statement.startswith("SELECT")]
    # For the key, for the connection
    assert len(looks) == 2, [(one[:30], one[-60:]) for one in looks]


def joined_late(held, memory, ask, act, refusal):
    """Return what a request gets that begins after `act` and joins a look from before.

    Whoever began that look is refused.
    """
    joined = joins(memory.reads)
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(ask)
        assert held.begun.wait(60)
        act()
        late = pool.submit(ask)
        until(lambda: joined == [True, False])  # it waits for the same look
        held.go_on.set()
        with pytest.raises(refusal):
            early.result()
        return late.result()


def test_a_look_from_before_a_key_was_made_is_no_reason_to_refuse_it(cold, there):
    memory, text = cold.authorization, generate_key()
    principal = joined_late(
        Held(cold, "api_keys"),
        memory._principals,
        lambda: memory.authenticate(text, None),
        lambda: there.api_keys.install_key(OPERATOR, text, name="just now"),
        UnauthenticatedError,
    )
    assert principal.name == "just now"


def test_a_look_from_before_a_connection_was_proven_is_no_reason_to_refuse_it(
    cold, there, by_hand, role
):
    made, memory = place(there, role), cold.authorization
    change = f"UPDATE connections SET status = :status WHERE id = '{made.connection_id.hex}'"  # noqa: S608
    by_hand(change, status="broken")
    principal = memory.authenticate(made.key, None)
    _, connection = joined_late(
        Held(cold, "connections"),
        memory._connections,
        lambda: memory.authorize_issuance(principal, ids(made)),
        lambda: by_hand(change, status="verified"),
        ConnectionNotVerifiedError,
    )
    assert connection.connection_id == made.connection_id


def test_of_looks_that_others_began_the_second_refusal_counts(cold, monkeypatch):
    """The first may have begun before the request, the second did not. A crowd would otherwise make
    a request wait for one look after the other.
    """
    joined = []

    def join(lookup, _look):
        joined.append(lookup)
        assert len(joined) <= 2, "it asks a third time"
        refused = Future()
        refused.set_exception(UnauthenticatedError("This key is not known."))
        return refused, False

    monkeypatch.setattr(cold.authorization._principals.reads, "join", join)
    with pytest.raises(UnauthenticatedError):
        cold.authorization.authenticate(generate_key(), None)
    assert len(joined) == 2


def test_a_read_that_hangs_holds_up_those_who_wait_for_it_and_no_later_request(
    cold, warm, monkeypatch
):
    monkeypatch.setattr("app.issuing.authorization._READ_SECONDS", 0.3)
    held = Held(cold, "api_keys")
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(cold.authorization.authenticate, warm.place.key, None)
        assert held.begun.wait(60)
        with pytest.raises(StoreUnavailableError):
            hanging.result()
        assert cold.authorization.authenticate(warm.place.key, None).key_id == warm.place.key_id
        held.go_on.set()
