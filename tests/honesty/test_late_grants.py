"""No request is served late: one that begins after something was taken away is refused, by every
process, on every path.
"""

import time

from tests.support.waiting import until

LATER = 15  # requests for each that must have begun after its change, and more


def change(service, name, place):
    kind, _, act = name.partition(".")
    path = place.tenant if kind == "tenant" else place.connection
    if act == "suspended":
        service.admin.must("POST", f"{path}/suspend", {"reason": "test"})
    elif act == "proof_failed":
        service.aws.stop_asking_for_external_id(place.role_arn)
        assert service.admin.must("POST", f"{path}/verify")["status"] == "insecure"
    else:
        path = f"/v1/api-keys/{place.key_id}" if kind == "api_key" else path
        service.admin.must("DELETE", path, expect=204)


# What revokes something, by the audit log's name; and what is answered afterwards.
CHANGES = {
    "api_key.revoked": (401, "unauthenticated"),
    "tenant.suspended": (409, "suspended"),
    "tenant.deleted": (404, "not_found"),
    "connection.suspended": (409, "suspended"),
    "connection.deleted": (404, "not_found"),
    "connection.proof_failed": (409, "connection_not_verified"),
}


def test_no_request_that_begins_after_a_change_is_served(service):
    """One change after the other, asked of one web process, while both serve all the places.
    tests/issuing/test_authorization.py has changes that are made by hand.
    """
    places = {name: service.place() for name in CHANGES}
    names, answers, over = list(CHANGES), {name: [] for name in CHANGES}, {}

    def ask(client, turn):
        name = names[turn % len(names)]
        answers[name].append(answer := places[name].ask(client, turn // len(names)))
        return answer

    with service.load(ask, pause=0.01) as load:
        load.go_on(4 * len(names))
        before = {name: found[:] for name, found in answers.items()}
        for name in CHANGES:
            change(service, name, places[name])
            over[name] = time.monotonic()
        until(
            lambda: all(len(later(answers[n], over[n])) > LATER for n in names),
            "answers after the changes",
        )
    assert load.lost == 0
    events = service.events()
    for name, refusal in CHANGES.items():
        assert {answer.status for answer in before[name]} == {200}, name
        refused = later(answers[name], over[name])
        assert {(answer.status, answer.json["code"]) for answer in refused} == {refusal}, name
        own = [event for event in events if event.is_of(places[name])]
        assert_the_log_agrees(own, answers[name])
        assert_no_issuance_follows(own, name, refused)


def later(answers, over):
    return [answer for answer in answers if answer.began > over]


def assert_the_log_agrees(events, answers):
    """What it says was issued is what was answered, neither less nor more."""
    recorded = [event.issued for event in events if event.issued]
    assert sorted(recorded) == sorted(answer.issued for answer in answers if answer.status == 200)


def assert_no_issuance_follows(events, action, later):
    """In the order of ids, behind the change's own event, for a request that began after the
    change.
    """
    (change,) = [event for event in events if event.action == action]
    behind = {event.request_id for event in events if event.issued and event.id > change.id}
    assert not behind & {answer.request_id for answer in later}
