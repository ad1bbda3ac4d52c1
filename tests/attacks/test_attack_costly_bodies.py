"""Bodies of the size that is taken, made to cost as much as they can: what is read, answered and
recorded is bounded.
"""

import json
import sys

from sqlalchemy import event

from app.api.kit.schemas import Strict
from app.api.tenants import TenantChange
from app.store.models import TenantAccount
from tests.attacks.evidence import case, problem, refusal

JSON = "application/json"
LARGEST = 256 * 1024
START, END = b'{"name": "x", "scopes": [', b"]}"


def filled(item, start=START, end=END, size=LARGEST):
    return start + b",".join([item] * ((size - len(start) - len(end)) // (len(item) + 1))) + end


LONG = LARGEST - 100
# name: a body, and the status that is right
COSTLY = {
    "as many empty strings as fit": (filled(b'""'), 400),
    "as many long numbers as fit": (filled(b"9" * 99), 422),
    "as many objects as fit": (filled(b"{}"), 400),
    "as many unknown keys as are read": (
        json.dumps({f"{n:0200}": 1 for n in range(1000)}).encode(),
        422,
    ),
    "a number of a quarter of a million digits": (b'{"name": ' + b"9" * LONG + b"}", 400),
    "a long name": (b'{"scopes": [], "name": "' + b"x" * LONG + b'"}', 422),
    "a long key": (b'{"' + b"x" * LONG + b'": 1}', 400),
    "depth": (b"[" * LONG, 400),
}


def test_a_costly_body_is_answered_and_recorded_in_a_few_words(scene):
    for name, (body, status) in COSTLY.items():
        with case(name):
            assert len(body) <= LARGEST
            response = scene.admin.raw("POST", "/v1/api-keys", data=body, content_type=JSON)
            code = "malformed_request" if status == 400 else "validation_failed"
            problem(response, status, code)
            assert len(response.data) < 8 * 1024
            event = refusal(scene.world, response)
            assert event["details"]["code"] == code
            assert len(json.dumps(event)) < 2 * 1024


def given():
    """Every field of every schema that a request is read with."""
    kinds = [Strict]  # the application is loaded, and with it every schema
    for kind in kinds:
        kinds += kind.__subclasses__()
    return (
        (kind, field.data_key or name) for kind in kinds for name, field in kind().fields.items()
    )


def test_every_list_and_every_text_of_every_request_has_a_length_that_is_counted_first(app):
    found = list(given())
    assert len(found) > 20
    for kind, name in found:
        for value in (["x"] * 10_001, "x" * 10_001):
            errors = kind().validate({name: value})
            assert list(errors) == [name], f"{kind.__name__}.{name}"
            assert errors[name][0].startswith("Must not be longer than "), (
                f"{kind.__name__}.{name}: {errors}"
            )


def test_twenty_fields_are_named_and_of_the_others_how_many_they_are(scene):
    wanted = {"name": "x", "scopes": ["audit:read"], "permission_sets": [""] * 25}
    found = scene.admin.refused(
        "POST", "/v1/api-keys", wanted, expect=422, code="validation_failed"
    )
    assert list(found["errors"]) == [f"permission_sets.{n}" for n in range(20)]
    assert found["detail"].endswith(" 5 more are not shown.")
    details = scene.world.audit(action="api_key.refused")[0]["details"]
    assert set(details["fields"]) <= {f"permission_sets.{n}" for n in range(25)}
    assert (len(details["fields"]), details["more_fields"]) == (20, 5)


def python_calls(act):
    """How many functions of Python are called: what it costs, and the same on a busy machine."""
    count = 0

    def note(_frame, what, _about):
        nonlocal count
        count += what == "call"

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_ten_thousand_accounts_cost_little_good_or_bad():
    errors = {}

    def validate(item):
        errors.clear()
        errors.update(TenantChange().validate({"accounts": [item] * 10_000}))

    for item in ("123456789012", "12345678901", "", "123456789012\n", None, 1, [], {}):
        with case(item=item):
            assert python_calls(lambda item=item: validate(item)) < 1000
            refused = {number: ["Must be an account id of 12 digits."] for number in range(20)}
            assert errors == ({} if item == "123456789012" else {"accounts": refused})


def test_ten_thousand_accounts_are_no_objects_when_they_are_shown(world):
    accounts = [f"{number:012d}" for number in range(10_000)]
    tenant = world.tenant(accounts=accounts)
    made = []

    def note(row, _context):
        made.append(row)

    event.listen(TenantAccount, "load", note)
    try:
        assert world.admin("GET", f"/v1/tenants/{tenant['id']}")["accounts"] == accounts
    finally:
        event.remove(TenantAccount, "load", note)
    assert made == []
