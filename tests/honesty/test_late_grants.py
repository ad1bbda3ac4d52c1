"""No request is served late: one that begins after something was taken away is refused, by every
process, on every path.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

import pytest

from tests.honesty.deployment import (
    HANDS,
    Answer,
    Client,
    Deployment,
    Event,
    Load,
    ProvenConnection,
)
from tests.support.waiting import until

LATER = 15  # requests for each that must have begun after its change, and more


@dataclass(frozen=True)
class Change:
    """`by_api` and `by_sql` take the same thing away; `action` is what the audit log calls the
    API's.
    """

    by_api: Callable[[Deployment, ProvenConnection], object]
    by_sql: str
    action: str
    refusal: tuple[int, str]


def revoke_the_key(service: Deployment, place: ProvenConnection) -> None:
    service.admin.must("DELETE", f"/v1/api-keys/{place.key_id}", expect=204)


def suspend_the_tenant(service: Deployment, place: ProvenConnection) -> None:
    service.admin.must("POST", f"{place.tenant}/suspend", {"reason": "test"})


def delete_the_tenant(service: Deployment, place: ProvenConnection) -> None:
    service.admin.must("DELETE", place.tenant, expect=204)


def suspend_the_connection(service: Deployment, place: ProvenConnection) -> None:
    service.admin.must("POST", f"{place.connection}/suspend", {"reason": "test"})


def delete_the_connection(service: Deployment, place: ProvenConnection) -> None:
    service.admin.must("DELETE", place.connection, expect=204)


def find_it_insecure(service: Deployment, place: ProvenConnection) -> None:
    service.aws.stop_asking_for_external_id(place.role_arn)
    assert service.admin.must("POST", f"{place.connection}/verify")["status"] == "insecure"


CHANGES = {
    "the key is revoked": Change(
        revoke_the_key,
        "UPDATE api_keys SET revoked_at = CURRENT_TIMESTAMP WHERE id = :key",
        "api_key.revoked",
        (401, "unauthenticated"),
    ),
    "the tenant is suspended": Change(
        suspend_the_tenant,
        "UPDATE tenants SET status = 'suspended' WHERE id = :tenant",
        "tenant.suspended",
        (409, "suspended"),
    ),
    "the tenant is deleted": Change(
        delete_the_tenant,
        "UPDATE tenants SET status = 'deleted', deleted_at = CURRENT_TIMESTAMP WHERE id = :tenant",
        "tenant.deleted",
        (404, "not_found"),
    ),
    "the connection is suspended": Change(
        suspend_the_connection,
        "UPDATE connections SET status = 'suspended' WHERE id = :connection",
        "connection.suspended",
        (409, "suspended"),
    ),
    "the connection is deleted": Change(
        delete_the_connection,
        "UPDATE connections SET status = 'deleted' WHERE id = :connection",
        "connection.deleted",
        (404, "not_found"),
    ),
    "the connection turns insecure": Change(
        find_it_insecure,
        "UPDATE connections SET status = 'insecure' WHERE id = :connection",
        "connection.proof_failed",
        (409, "connection_not_verified"),
    ),
}


@pytest.mark.parametrize("way", ["api", "sql"])
def test_no_request_that_begins_after_a_change_is_served(service: Deployment, way: str):
    """One change after the other, asked of one web process or of none, while both serve all the
    places.
    """
    places = {name: service.place() for name in CHANGES}
    names, answers, over = list(CHANGES), {name: [] for name in CHANGES}, {}

    def ask(client: Client, turn: int) -> Answer:
        name = names[turn % len(names)]
        answers[name].append(answer := places[name].ask(client, turn // len(names)))
        return answer

    with (
        service.clients(HANDS // 2) as by_process,
        Load([*chain(*by_process.values())], ask) as load,
    ):
        load.go_on(4 * len(names))
        before = {name: found[:] for name, found in answers.items()}
        for name, change in CHANGES.items():
            if way == "api":
                change.by_api(service, places[name])
            else:
                by_sql(service, places[name], change.by_sql)
            over[name] = time.monotonic()
        until(
            lambda: all(len(later(answers[n], over[n])) > LATER for n in names),
            "answers after the changes",
        )
    assert load.lost == 0
    events = service.events()
    for name, change in CHANGES.items():
        assert {answer.status for answer in before[name]} == {200}, name
        refused = Counter(
            (answer.status, answer.json["code"]) for answer in later(answers[name], over[name])
        )
        assert set(refused) == {change.refusal}, name
        own = [event for event in events if event.is_of(places[name])]
        assert_the_log_agrees(own, answers[name])
        if way == "api":
            assert_no_issuance_follows(own, change.action, later(answers[name], over[name]))


def later(answers: list[Answer], over: float) -> list[Answer]:
    return [answer for answer in answers if answer.began > over]


def by_sql(service: Deployment, place: ProvenConnection, statement: str) -> None:
    ids = {"key": place.key_id, "tenant": place.tenant_id, "connection": place.connection_id}
    service.sql(
        statement, **{name: UUID(id_).hex for name, id_ in ids.items() if f":{name}" in statement}
    )


def assert_the_log_agrees(events: list[Event], answers: list[Answer]) -> None:
    """What it says was issued is what was answered, neither less nor more."""
    recorded = [event.issued for event in events if event.issued]
    assert sorted(recorded) == sorted(answer.issued for answer in answers if answer.status == 200)


def assert_no_issuance_follows(events: list[Event], action: str, later: list[Answer]) -> None:
    """In the order of ids, behind the change's own event, for a request that began after the
    change.
    """
    (change,) = [event for event in events if event.action == action]
    behind = {event.request_id for event in events if event.issued and event.id > change.id}
    assert not behind & {answer.request_id for answer in later}
