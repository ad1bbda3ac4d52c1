"""A stop beside many who write without a pause: it gets through at once, and nothing is written
after it.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy

from app.aws.stack_messages import Request
from app.errors import NotFoundError, SuspendedError, UnauthenticatedError
from app.identity import owned, tenant_of
from app.identity.scopes import ALL_SCOPES
from app.limits.limits import VENDOR_REQUESTS
from app.onboarding.registration_tokens import VoidToken
from app.onboarding.registrations import Registrations
from app.store.models import ApiKey, AuditEvent, Connection, OnboardingLink
from app.store.models.deployment import deployment_id
from tests.conftest import OPERATOR
from tests.support.rows import Role, connection_row, tenant_row
from tests.support.waiting import until

WRITERS = VENDOR_REQUESTS.amount  # so many of unbound keys work at once in a process
WARM = WRITERS  # writes until the stop
# Writes that may pass a stop: of each writer the one at work, those while the stop gets to its
# lock, and the one that waits before it. Without a fair lock they go on until the stop fails.
PASSING = 4 * WRITERS
GONE = (UnauthenticatedError, NotFoundError)
TABLES = (ApiKey, OnboardingLink, Connection, AuditEvent)  # what the writers write
REASON = "an incident"


class Place:
    """A tenant with a connection, and whom the vendor gave keys and links."""

    def __init__(self, services):
        self.services, self.db = services, services.db
        self.tenant_id = tenant_row(self.db)
        account = f"{uuid.uuid4().int % 10**12:012d}"
        self.connection_id = connection_row(
            self.db, self.tenant_id, Role(f"arn:aws:iam::{account}:role/x", "AROAX")
        )
        self.vendor, _ = self.key(OPERATOR)

    def key(self, by, tenant_id=None):
        _, text = self.services.api_keys.create_key(
            by, name="x", scopes=ALL_SCOPES, tenant_id=tenant_id
        )
        return self.services.api_keys.authenticate(text), text

    def link(self):
        link, url = self.services.links.create(self.vendor, self.tenant_id)
        return self.services.links.open(url.rpartition("/")[2], None).principal, link.id

    def change(self, caller):
        """A request that writes, locks the tenant and its connection, and needs a tenant that is
        not suspended.
        """
        names = "inventory", "bucket-sync"
        wanted = names[time.monotonic_ns() % 2]
        self.services.approvals.ask_for_set(
            caller, self.tenant_id, self.connection_id, permission_set=wanted
        )

    def add(self, caller):
        """As a request of a link's page that adds a role."""
        with self.db.write(caller) as db:
            connection = Connection(
                tenant_id=self.tenant_id,
                external_id_id=db.get(Connection, self.connection_id).external_id_id,
                role_arn=f"arn:aws:iam::123456789012:role/{uuid.uuid4()}",
                account_id="123456789012",
                permission_set="inventory",
            )
            db.add(connection)

    def store_proof(self, caller):
        with self.db.write(caller) as db:
            tenant_of(db, caller, self.tenant_id, lock=True)
            connection = owned(db, caller, self.tenant_id, self.connection_id, lock=True)
            connection.ensure_not_suspended()
            connection.version += 1


@pytest.fixture
def besieged(app) -> Place:
    return Place(app.extensions["deputy"])


def deadlocks(database):
    """How many PostgreSQL broke up in this database."""
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with database.read() as db:
        db.execute(sqlalchemy.text("SELECT pg_stat_force_next_flush()"))
        return db.scalar(sqlalchemy.text(count))


@pytest.fixture(autouse=True)
def no_deadlock(besieged) -> Iterator[None]:
    before = deadlocks(besieged.db)
    yield
    assert deadlocks(besieged.db) == before


def rows(besieged):
    count = sqlalchemy.func.count()
    with besieged.db.read() as db:
        versions = sqlalchemy.select(sqlalchemy.func.sum(Connection.version))
        return [db.scalar(sqlalchemy.select(count).select_from(table)) for table in TABLES] + [
            db.scalar(versions)
        ]


def assert_it_stops(besieged, write, stop, refusals):
    """Stop, while many write without a pause. Fails unless few of them pass the stop, and it is
    final for all of them.
    """
    written = []
    failed = []
    end = threading.Event()

    def keep_writing():
        while not end.is_set():
            try:
                write()
            except refusals:
                return
            except BaseException as error:
                failed.append(error)
                raise
            written.append(None)

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(keep_writing) for _ in range(WRITERS)]
        try:
            until(lambda: len(written) > WARM or failed)
            before = len(written)
            stop()
            passed = len(written) - before
            after = rows(besieged)
            for writer in writers:
                writer.result(timeout=30)  # each was refused
        finally:
            end.set()
    assert passed <= PASSING
    assert rows(besieged) == after


def all_dead(besieged, texts):
    for text in texts:
        with pytest.raises(UnauthenticatedError):
            besieged.services.api_keys.authenticate(text)
    return True


@pytest.mark.parametrize("bound", [True, False])  # an unbound one is revoked by the command
def test_a_key_that_makes_keys_without_a_pause_is_revoked_with_all_of_them(besieged, bound):
    stolen, text = besieged.key(OPERATOR, besieged.tenant_id if bound else None)
    makers, texts = [stolen], [text]

    def breed():
        """Make one more, by this key or by one that came of it."""
        maker, made = besieged.key(makers[len(texts) % len(makers)])
        makers.append(maker)
        texts.append(made)

    revoker = besieged.vendor if bound else OPERATOR
    revoke = besieged.services.api_keys.revoke_key
    assert_it_stops(besieged, breed, lambda: revoke(revoker, stolen.key_id), GONE)
    assert all_dead(besieged, texts)


UNBOUND = lambda place: place.key(OPERATOR)  # noqa: E731
BOUND = lambda place: place.key(OPERATOR, place.tenant_id)  # noqa: E731
# Whom the vendor let in, what they do without a pause, the stop, and how they are refused then
SIEGES = {
    "a key is revoked": (
        UNBOUND,
        Place.change,
        lambda place, key, _: place.services.api_keys.revoke_key(place.vendor, key.key_id),
        GONE,
    ),
    "a key is replaced without grace": (
        UNBOUND,
        Place.change,
        lambda place, key, _: place.services.api_keys.replace_key(
            place.vendor, key.key_id, grace_seconds=0
        ),
        GONE,
    ),
    "a link is revoked": (
        Place.link,
        Place.add,
        lambda place, _, link_id: place.services.links.revoke(
            place.vendor, place.tenant_id, link_id
        ),
        GONE,
    ),
    "a tenant is deleted": (
        BOUND,
        Place.change,
        lambda place, *_: place.services.tenants.delete(place.vendor, place.tenant_id),
        GONE,
    ),
    "a tenant is suspended": (
        UNBOUND,
        Place.change,
        lambda place, *_: place.services.tenants.suspend(
            place.vendor, place.tenant_id, reason=REASON
        ),
        (SuspendedError,),
    ),
    "a connection is suspended": (
        UNBOUND,
        Place.store_proof,
        lambda place, *_: place.services.connections.suspend(
            place.vendor, place.tenant_id, place.connection_id, reason=REASON
        ),
        (SuspendedError,),
    ),
}


@pytest.mark.parametrize("stop", SIEGES)
def test_a_stop_is_quick_and_final_beside_those_who_write_without_a_pause(besieged, stop):
    let_in, write, act, refusals = SIEGES[stop]
    writer, detail = let_in(besieged)
    assert_it_stops(
        besieged, lambda: write(besieged, writer), lambda: act(besieged, writer, detail), refusals
    )


def test_a_link_is_revoked_beside_a_flood_of_messages_with_its_token(besieged):
    _, link_id = besieged.link()
    inbox = Registrations(
        besieged.db, besieged.services.config, besieged.services.onboarding.sets, None, None
    )  # type: ignore[arg-type]
    with besieged.db.read() as db:
        token = inbox._tokens.make(deployment_id(db), besieged.tenant_id, 1, link_id=link_id)

    def register():
        number = uuid.uuid4()
        account = f"{number.int % 10**12:012d}"
        stack = f"arn:aws:cloudformation:us-east-1:{account}:stack/x/{number}"
        properties = {
            "RegistrationToken": token,
            "RoleArn": f"arn:aws:iam::{account}:role/deputy-x",
        }
        message = Request(
            "us-east-1",
            "Create",
            stack,
            "aws",
            account,
            str(number),
            "R",
            "P",
            "https://x",
            properties,
            {},
        )
        inbox._register(inbox._check(message))

    assert_it_stops(
        besieged,
        register,
        lambda: besieged.services.links.revoke(besieged.vendor, besieged.tenant_id, link_id),
        (VoidToken,),
    )
