"""Bodies and queries that no client of ours sends: a 4xx with a problem, never a 5xx, and
nothing is changed.
"""

import datetime as dt
import io
import json
from functools import partial

import pytest

from tests.attacks.chunks import MALFORMED_CHUNKS, chunked
from tests.attacks.evidence import case, problem, refusal, unchanged
from tests.attacks.routes import LISTS, WITH_BODY
from tests.support.cast import path_of

JSON = "application/json"
KIB, MIB = 1024, 1024 * 1024

# name: content type, body, and the status that is right.
MALFORMED = {
    "no content type": ("", b'{"name": "x"}', 415),
    "text": ("text/plain", b'{"name": "x"}', 415),
    "not JSON": (JSON, b"{", 400),
    "lone surrogate": (JSON, b'{"name": "\\ud800"}', 400),
    "NUL": (JSON, b'{"name": "a\\u0000b", "reason": "\\u0000"}', 400),
    "the same key twice": (JSON, b'{"name": "x", "name": "y"}', 400),
    "a depth bomb": (JSON, b"[" * 250_000, 400),
    "more values than are read": (JSON, b'{"name": [' + b"1," * 20_000 + b"1]}", 400),
    "more keys than are read": (
        JSON, json.dumps({f"f{n}": 1 for n in range(1001)}).encode(), 400,
    ),
    "a key of 257 characters": (JSON, json.dumps({"k" * 257: 1}).encode(), 400),
    "a list": (JSON, b"[]", 422),
    "over 256 KiB": (JSON, b'{"name": "' + b"x" * (256 * KIB) + b'"}', 413),
    "10 MiB": (JSON, b" " * (10 * MIB), 413),
}  # fmt: skip
CODES = {
    400: "malformed_request",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
}


@pytest.fixture(scope="session")
def places(scene):
    """Every route with a body, on things of Acme's that are really there."""
    return [(route.method, route.at(**scene.ids)) for route in WITH_BODY]


# Tried on every route; the others on one of each reader of bodies, as all routes share them.
ON_EVERY_ROUTE = {"text", "not JSON", "a list", "over 256 KiB"}
# An ordinary route, credentials, and one that stops something
READERS = ("/v1/tenants", "/credentials", "/suspend")


def test_a_malformed_body_is_a_4xx(scene, places):
    readers = [place for place in places if place[1].endswith(READERS)]
    assert len(readers) >= len(READERS)
    with unchanged(scene.world, scene.ours):
        for name, (kind, body, status) in MALFORMED.items():
            for method, path in places if name in ON_EVERY_ROUTE else readers:
                with case(name, path=path):
                    response = scene.admin.raw(method, path, data=body, content_type=kind)
                    problem(response, status, CODES[status])


def test_a_body_in_chunks_is_measured_and_malformed_chunks_are_a_4xx_on_every_route(scene, places):
    """The server finds malformed ones out only while we read, by an exception of its own."""
    large = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    with unchanged(scene.world, scene.ours):
        for method, path in places:
            send = partial(scene.admin.raw, method, path, content_type=JSON)
            is_reader = path.endswith(READERS)
            with case(f"{method} {path}"):
                for size in (256 * KIB + 1, 3 * MIB) if is_reader else (256 * KIB + 1,):
                    body = io.BytesIO(b" " * size)
                    response = send(input_stream=body, environ_overrides=large)
                    problem(response, 413, "payload_too_large")
                for chunks in MALFORMED_CHUNKS if is_reader else MALFORMED_CHUNKS[:1]:
                    problem(send(**chunked(chunks)), 400, "malformed_request")


QUERIES = ["cursor=%00", "%ED%A0%80=x", "%FF=%FE", "a" * 5000, "limit=" + "9" * 5000, "limit=NaN"]
QUERIES += ["&".join(f"f{n}=1" for n in range(3000)), "cursor=", "cursor=" + "A" * 501, "="]
NO_DIGITS = ["+1", "%201", "1_0", "1.0", "\u0663", "\uff11", ""]
TWICE = ["limit=5&limit=5", "x=1&x=2", "cursor=a&limit=1&cursor=a"]
DIFFERENCE = "/v1/permission-sets/inventory/difference"


def get(scene, path, query):
    return scene.admin.raw("GET", f"{path.format(tenant_id=scene.acme['id'])}?{query}")


def test_a_malformed_query_is_a_4xx_on_every_list(scene):
    for path in LISTS:
        for query in QUERIES if path == LISTS[0] else QUERIES[:1]:  # all are read at one place
            with case(path, query=query[:50]):
                response = get(scene, path, query)
                assert 400 <= response.status_code < 500
                problem(response, response.status_code, CODES[response.status_code])


def test_a_number_in_a_query_is_of_ascii_digits(scene):
    fields = dict.fromkeys(LISTS, "limit") | {DIFFERENCE: "from=1&to"}
    for path, field in fields.items():
        for number in NO_DIGITS if path == LISTS[0] else NO_DIGITS[:1]:
            with case(path, number=number):
                response = get(scene, path, f"{field}={number.replace('+', '%2B')}")
                errors = problem(response, 422, "validation_failed")["errors"]
                assert set(errors) == {field.rpartition("&")[2]}


def test_a_parameter_that_is_given_twice_is_malformed(scene):
    """A proxy may have looked at the other one."""
    for path in (
        *LISTS,
        "/v1/tenants/{tenant_id}/onboarding",
        "/v1/templates/customer-role.yaml",
        DIFFERENCE,
    ):
        for query in TWICE if path == LISTS[0] else TWICE[:1]:
            with case(path, query=query):
                problem(get(scene, path, query), 400, "malformed_request")


def test_a_flag_is_true_or_false(scene):
    path = f"/v1/tenants/{scene.acme['id']}/external-id/rotation"
    for value in (0, 1, "true", None):
        with case(value=value):
            response = scene.admin.raw("POST", path, {"reason": "x", "emergency": value})
            problem(response, 422, "validation_failed")


TIMES = ["2026-01-01", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"]
TIMES += ["2026-13-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z", "1735689600", "-infinity", "", "\0"]
ODD_BUT_TIMES = ["2030-01-01T12:00:00+05:30", "2030-01-01T00:00:00+00:00:00.000001"]
ODD_BUT_TIMES += ["9998-12-31T23:59:59-14:00", "2030-01-01T00:00:00.123456789Z"]


def test_a_time_is_read_or_refused_and_never_an_error_of_ours(scene):
    for text in (*TIMES, *ODD_BUT_TIMES):
        with case(ascii(text)):
            expected = {400, 422} if text in TIMES else {200, 201, 422}
            for field in ("since", "until"):
                response = scene.mallory.raw("GET", "/v1/audit-events", query_string={field: text})
                assert response.status_code in expected, response.text
            body = {"name": "timed", "scopes": ["audit:read"], "expires_at": text}
            response = scene.admin.raw("POST", "/v1/api-keys", body)
            assert response.status_code in expected, response.text
            if response.status_code == 201:
                key = response.get_json()
                shown = scene.admin("GET", f"/v1/api-keys/{key['id']}")["expires_at"]
                assert shown == key["expires_at"]
                assert dt.datetime.fromisoformat(shown).utcoffset() == dt.timedelta(0)


UNKNOWN = ["/", "/v1", "/v2/tenants", "/v1/tenants/", "/v1/tenants/1", "/v1/tenants/x/connections"]
ODD = ["/v1/tenants/%00", "/v1/%ED%A0%80", "/%2e%2e/%2e%2e/etc/passwd", "/v1/tenants/" + "a" * 9000]


def test_an_unknown_or_odd_path_is_not_found_with_or_without_a_key(scene):
    for path in (*UNKNOWN, *ODD):
        for api in (scene.admin, scene.admin.with_key(None)):
            with case(path[:50], key=api.key is not None):
                problem(api.raw("GET", path), 404, "not_found")
                for method in ("POST", "DELETE"):
                    assert api.raw(method, path).status_code in {404, 405}


def test_a_refused_requests_event_is_small_and_holds_no_secret(scene, world):
    """The audit log is never deleted: a caller's text must not fill it. A key may be pasted as a
    field's name.
    """
    send = partial(scene.mallory.raw, "POST", path_of(scene.ours, "/credentials"))
    for response in (
        send(body={"a" * 200 + str(n): 1 for n in range(900)}),
        send(body={scene.mallory.key: 1}),
        scene.mallory.raw("GET", f"/v1/tenants?{scene.mallory.key}=1"),
    ):
        problem(response, 422, "validation_failed")
        text = json.dumps(refusal(world, response))
        assert len(text) < 20_000
        assert scene.mallory.key not in text
