"""A POST with an Idempotency-Key takes effect once, however often it is sent."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import time_machine
from sqlalchemy import select

from app.clock import now
from app.idempotency import attempts
from app.store.models import IdempotentRequest
from tests.support.cast import path_of

REASON = {"reason": "a test"}


def sent(api, path, body, key, **more):
    return api.raw("POST", path, body, headers={"Idempotency-Key": key, **more})


def count_of(world, company):
    return len(world.admin("GET", f"/v1/tenants?name={company}")["items"])


@pytest.fixture
def company() -> str:
    return uuid4().hex


def test_a_request_that_is_sent_again_gets_the_first_answer(world, company):
    key, body = str(uuid4()), {"name": company}
    first, second, third = (
        sent(world.admin, "/v1/tenants", body, text) for text in (key, key, f'"{key}"')
    )
    assert [first.status_code, second.status_code, third.status_code] == [201] * 3
    assert first.data == second.data == third.data
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == third.headers["Idempotency-Replayed"] == "true"
    assert count_of(world, company) == 1


def test_another_body_is_refused_and_another_key_path_or_api_key_is_another_request(world, company):
    key = str(uuid4())
    first = sent(world.admin, "/v1/tenants", {"name": company}, key).get_json()
    reused = sent(world.admin, "/v1/tenants", {"name": f"{company} x"}, key)
    assert (reused.status_code, reused.get_json()["code"]) == (422, "idempotency_key_reused")
    other = world.key("tenants:write", "tenants:read")
    assert sent(other, "/v1/tenants", {"name": company}, key).get_json()["id"] != first["id"]
    for what in ("suspend", "resume"):
        done = sent(world.admin, f"/v1/tenants/{first['id']}/{what}", REASON, key)
        assert done.status_code == 200


def test_a_refusal_is_not_kept(world, company):
    key, reference = str(uuid4()), uuid4().hex
    taken = world.tenant(reference=reference)
    body = {"name": company, "reference": reference}
    assert sent(world.admin, "/v1/tenants", body, key).status_code == 409
    world.admin("DELETE", f"/v1/tenants/{taken['id']}", expect=204)
    assert sent(world.admin, "/v1/tenants", body, key).status_code == 201


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "schlüssel"])
def test_a_key_that_is_no_key_is_refused(world, key):
    answer = sent(world.admin, "/v1/tenants", {"name": "x"}, key.encode().decode("latin-1"))
    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed_request")


def test_fifty_at_once_have_one_effect(world, company):
    key = str(uuid4())
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(
                lambda _: sent(
                    world.admin.with_key(world.admin.key), "/v1/tenants", {"name": company}, key
                ),
                range(50),
            )
        )
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {201, 409}
    assert len({answer.data for answer in answers if answer.status_code == 201}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert answer.get_json()["code"] == "idempotency_key_in_use"
            assert answer.headers["Retry-After"] == "1"
    assert count_of(world, company) == 1


def killed_before_its_answer(monkeypatch, world):
    """Store no answer, as if the process had been killed after the effect."""
    monkeypatch.setattr(world.services.idempotency, "end", lambda *_: None)


def test_a_thiefs_headers_are_of_no_consequence_once_the_key_is_revoked(world, monkeypatch):
    """They are kept for a day, and count for all keys of the tenant."""
    few = attempts.IDEMPOTENT_OF_TENANT._replace(most=3)
    monkeypatch.setattr(attempts, "IDEMPOTENT_OF_TENANT", few)
    tenant = world.tenant()
    wanted = {"name": "x", "scopes": ["connections:write"], "tenant_id": tenant["id"]}
    stolen, own = (world.admin("POST", "/v1/api-keys", wanted, expect=201) for _ in range(2))
    path, body = f"/v1/tenants/{tenant['id']}/connections", {"account_id": "444455556666"}
    connection = world.admin("POST", path, body, expect=201)
    verify = f"{path}/{connection['id']}/verify"
    for _ in range(3):
        assert (
            sent(world.admin.with_key(stolen["key"]), verify, {}, str(uuid4())).status_code == 200
        )
    refused = sent(world.admin.with_key(own["key"]), verify, {}, str(uuid4()))
    assert refused.status_code == 429
    assert 80_000 < int(refused.headers["Retry-After"]) <= 86_400
    world.admin("DELETE", f"/v1/api-keys/{stolen['id']}", expect=204)
    assert sent(world.admin.with_key(own["key"]), verify, {}, str(uuid4())).status_code == 200


def test_a_stop_takes_effect_however_many_headers_are_kept(world, company, monkeypatch):
    one = attempts.IDEMPOTENT_REQUESTS._replace(most=1)
    monkeypatch.setattr(attempts, "IDEMPOTENT_REQUESTS", one)
    requests = {path_of(world.connection(), "/suspend"): REASON, "/v1/tenants": {"name": company}}
    sent(world.admin, "/v1/tenants", {"name": "x"}, str(uuid4()))
    answers = [sent(world.admin, *request, str(uuid4())) for request in requests.items()]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_a_header_is_another_requests_after_a_day_also_without_housekeeping(world, company):
    key = str(uuid4())
    assert sent(world.admin, "/v1/tenants", {"name": company}, key).status_code == 201
    with time_machine.travel(now() + timedelta(hours=25)):
        again = sent(world.admin, "/v1/tenants", {"name": f"{company} x"}, key)
    assert again.status_code == 201


def test_a_retry_after_a_kill_answers_what_was_made_as_it_is_now(world, company, monkeypatch):
    key, body = str(uuid4()), {"name": company}
    with monkeypatch.context() as killing:
        killed_before_its_answer(killing, world)
        made = sent(world.admin, "/v1/tenants", body, key).get_json()
    waits = sent(world.admin, "/v1/tenants", body, key)
    assert waits.get_json()["code"] == "idempotency_key_in_use"
    world.admin("PATCH", f"/v1/tenants/{made['id']}", {"name": f"{company} renamed"})
    with time_machine.travel(now() + timedelta(seconds=61)):
        again = sent(world.admin, "/v1/tenants", body, key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.get_json() == made | {"name": f"{company} renamed"}
    assert count_of(world, company) == 1


def test_a_retry_after_an_answer_that_is_too_large_to_keep_answers_what_was_made(world, company):
    key = str(uuid4())
    body = {"name": company, "accounts": [f"{number:012}" for number in range(2_000)]}
    first, second = (sent(world.admin, "/v1/tenants", body, key) for _ in range(2))
    assert len(first.data) > 16 * 1024
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.get_json()["id"] == first.get_json()["id"]
    with world.services.db.read() as db:
        kept = select(IdempotentRequest.answer).filter_by(tenant_id=UUID(first.get_json()["id"]))
        assert db.scalars(kept).all() == [None]
    assert count_of(world, company) == 1
    path = f"/v1/tenants/{first.get_json()['id']}"
    sent(world.admin, f"{path}/suspend", REASON, key)
    world.admin("POST", f"{path}/resume", REASON)
    again = sent(world.admin, f"{path}/suspend", REASON, key)
    assert again.get_json()["status"] == "suspended", "a stop's answer is kept"


def test_a_retry_after_a_kill_has_the_first_answers_status(world, monkeypatch):
    """A rotation that becomes an emergency is not a new one."""
    path = f"/v1/tenants/{world.tenant()['id']}/external-id/rotation"
    for body, status in ((REASON, 201), (REASON | {"emergency": True}, 200)):
        key = str(uuid4())
        with monkeypatch.context() as killing:
            killed_before_its_answer(killing, world)
            assert sent(world.admin, path, body, key).status_code == status
        with time_machine.travel(now() + timedelta(seconds=61)):
            assert sent(world.admin, path, body, key).status_code == status


def test_a_retry_after_a_kill_finishes_the_proof(world, monkeypatch):
    tenant, key = world.tenant(), str(uuid4())
    path, body = f"/v1/tenants/{tenant['id']}/connections", {"role_arn": world.role(tenant)}

    class KilledError(Exception):
        pass

    def verify(*_, **__):
        raise KilledError

    with monkeypatch.context() as killing:
        killed_before_its_answer(killing, world)
        killing.setattr(world.services.verification, "verify", verify)
        assert sent(world.admin, path, body, key).status_code == 500
    with time_machine.travel(now() + timedelta(seconds=61)):
        again = sent(world.admin, path, body, key)
    assert (again.status_code, again.get_json()["status"]) == (201, "verified")
    assert len(world.admin("GET", path)["items"]) == 1


def test_an_attempt_that_was_overtaken_writes_nothing(world, monkeypatch):
    connection, key = world.connection(), str(uuid4())
    path = path_of(connection, "/suspend")
    idempotency = world.services.idempotency
    begin, overtaken = idempotency.begin, []

    def slow(*args, **options):
        attempt = begin(*args, **options)
        if not overtaken:
            overtaken.append(True)
            attempt.has_row = True  # it had written, and another attempt took the row since
        return attempt

    monkeypatch.setattr(idempotency, "begin", slow)
    answer = sent(world.admin, path, REASON, key)
    assert answer.get_json()["code"] == "idempotency_key_in_use"
    assert world.read(connection)["status"] == "verified"


def test_each_post_accepts_the_header_or_refuses_it_as_openapi_says(world):
    """A POST refuses the header if its answer has a secret."""
    paths = world.admin("GET", "/openapi.json")["paths"]
    posts = {path: operations["post"] for path, operations in paths.items() if "post" in operations}
    refusing = {
        path
        for path, post in posts.items()
        if not any(each.get("name") == "Idempotency-Key" for each in post.get("parameters", []))
    }
    one = "/v1/webhook-endpoints/{endpoint_id}"
    connection = "/v1/tenants/{tenant_id}/connections/{connection_id}"
    assert refusing == {
        "/v1/api-keys",
        "/v1/api-keys/{key_id}/replace",
        "/v1/tenants/{tenant_id}/onboarding-links",
        "/v1/webhook-endpoints",
        f"{one}/rotate-secret",
        f"{connection}/credentials",
    }
    for path in posts:
        place = path.replace("{", "").replace("}", "")
        for name in ("tenant_id", "connection_id", "key_id", "endpoint_id", "delivery_id"):
            place = place.replace(name, str(uuid4()))
        answer = sent(world.admin, place, {}, str(uuid4()))
        assert (answer.status_code == 400) == (path in refusing), (path, answer.text)
