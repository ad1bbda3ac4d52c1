"""Bodies of the size that is taken, made to cost as much as they can: what is read, answered and recorded is bounded."""

import json
from collections.abc import Iterator

import pytest
from marshmallow import fields

from app.http.schemas import Strict
from tests.attacks.evidence import Scene, on_postgresql, problem
from tests.support.cast import World

JSON = "application/json"
LARGEST = 256 * 1024
START, END = b'{"name": "x", "scopes": [', b"]}"


def filled(item: bytes, start: bytes = START, end: bytes = END, size: int = LARGEST) -> bytes:
    return start + b",".join([item] * ((size - len(start) - len(end)) // (len(item) + 1))) + end


LONG = LARGEST - 100
# name: a body, and the status that is right
COSTLY = {
    "as many empty strings as fit": (filled(b'""'), 400),
    "the most values that are read": (filled(b'""', size=55_000), 422),
    "as many numbers as fit": (filled(b"1"), 400),
    "as many long numbers as fit": (filled(b"9" * 99), 422),
    "as many long fractions as fit": (filled(b"0." + b"9" * 90), 422),
    "as many objects as fit": (filled(b"{}"), 400),
    "as many lists as fit": (filled(b"[]"), 400),
    "as many unknown keys as are read": (json.dumps({f"{n:0200}": 1 for n in range(1000)}).encode(), 422),
    "a number of a quarter of a million digits": (b'{"name": ' + b"9" * LONG + b"}", 400),
    "a fraction of as many": (b'{"name": 0.' + b"9" * LONG + b"}", 400),
    "a long name": (b'{"scopes": [], "name": "' + b"x" * LONG + b'"}', 422),
    "a long name of line feeds": (b'{"scopes": [], "name": "' + b"\\n" * (LONG // 2) + b'"}', 422),
    "a long id": (b'{"scopes": [], "tenant_id": "' + b"1" * LONG + b'"}', 422),
    "a long time": (b'{"scopes": [], "expires_at": "' + b"1" * LONG + b'"}', 422),
    "a long key": (b'{"' + b"x" * LONG + b'": 1}', 400),
    "depth": (b"[" * LONG, 400),
}


def newest_refusal(world: World):
    return world.audit(action="api_key.refused", limit="1")[0]


@on_postgresql
@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_body_is_answered_and_recorded_in_a_few_words(scene: Scene, name: str):
    body, status = COSTLY[name]
    assert len(body) <= LARGEST
    response = scene.world.admin.raw("POST", "/v1/api-keys", data=body, content_type=JSON)
    code = "malformed_request" if status == 400 else "validation_failed"
    problem(response, status, code)
    assert len(response.data) < 8 * 1024
    event = newest_refusal(scene.world)
    assert event["details"]["code"] == code
    assert len(json.dumps(event)) < 2 * 1024


def test_no_item_of_a_list_that_is_too_long_is_read(world: World, monkeypatch: pytest.MonkeyPatch):
    read = []
    inner = fields.Enum._deserialize
    monkeypatch.setattr(fields.Enum, "_deserialize", lambda *args, **kwargs: read.append(1) or inner(*args, **kwargs))
    wanted = {"name": "x", "scopes": ["tenants:read"] * 9}
    found = world.admin.refused("POST", "/v1/api-keys", wanted, expect=422, code="validation_failed")
    assert found["errors"] == {"scopes": ["Must not be longer than 8."]}
    assert not read
    world.admin("POST", "/v1/api-keys", wanted | {"scopes": ["tenants:read"] * 8}, expect=201)
    assert len(read) == 8


def given() -> Iterator[tuple[type, str]]:
    """Every field of every schema that a request is read with."""
    kinds = [Strict]  # the application is loaded, and with it every schema
    for kind in kinds:
        kinds += kind.__subclasses__()
    return ((kind, name) for kind in kinds for name in kind().fields)


def test_every_list_and_every_text_of_every_request_has_a_length_that_is_counted_first(app):
    found = list(given())
    assert len(found) > 20
    for kind, name in found:
        for value in (["x"] * 10_001, "x" * 10_001):
            errors = kind().validate({name: value})
            assert list(errors) == [name], f"{kind.__name__}.{name}"
            assert errors[name][0].startswith("Must not be longer than "), f"{kind.__name__}.{name}: {errors}"


def test_twenty_fields_are_named_and_of_the_others_how_many_they_are(scene: Scene):
    found = scene.world.admin.refused(
        "POST", "/v1/tenants", {"name": "x"} | {f"f{n}": 1 for n in range(25)}, expect=422, code="validation_failed"
    )
    assert len(found["errors"]) == 20
    assert found["detail"].endswith(" 5 more are not shown.")


def test_an_event_names_as_many_and_how_many_more_there_were(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.http.problems._NAMED", 3)  # no list of today's holds more than twenty bad items
    wanted = {"name": "x", "scopes": ["nonsense"] * 8}
    found = scene.world.admin.refused("POST", "/v1/api-keys", wanted, expect=422, code="validation_failed")
    assert list(found["errors"]) == ["scopes.0", "scopes.1", "scopes.2"]
    details = newest_refusal(scene.world)["details"]
    assert details["fields"] == ["scopes.0", "scopes.1", "scopes.2"]
    assert details["more_fields"] == 5
