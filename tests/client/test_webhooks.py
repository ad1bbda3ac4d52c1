"""Receivers check deliveries with the client: Deputy's pass, and nobody else's."""

import base64
import json
import secrets
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from deputy_client.webhooks import VerificationError, verify
from standardwebhooks import Webhook

from app.clock import now
from app.webhooks.signing import signed_headers

BODY = json.dumps({"type": "tenant.created", "timestamp": "x", "data": {}}).encode()


def made():
    key = secrets.token_bytes(32)
    return key, "whsec_" + base64.b64encode(key).decode()


def test_a_delivery_is_verified_with_either_secret_while_one_is_replaced():
    (old_key, old), (new_key, new), (_, other) = made(), made(), made()
    headers = signed_headers(uuid4(), now(), BODY, [new_key, old_key])
    for given in (old, new, [other, new], (old, other)):
        assert verify(given, headers, BODY)["type"] == "tenant.created"
    assert verify(new, {name.upper(): value for name, value in headers.items()}, BODY)
    assert Webhook(new).verify(BODY, headers)
    with pytest.raises(VerificationError):
        verify(other, headers, BODY)


def test_what_the_public_package_signs_is_verified_too():
    _, secret = made()
    at = now()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, BODY.decode()),
    }
    assert verify(secret, headers, BODY)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "another"},
        {"webhook-timestamp": str(int(time.time()) - 1)},
        {"webhook-timestamp": "yesterday"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-id": "\ud800"},
        {"webhook-signature": "v1,\ud800"},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v1a,x"},
        {"webhook-signature": ""},
    ],
)
def test_what_was_changed_is_refused(change):
    key, secret = made()
    headers = signed_headers(uuid4(), now(), BODY, [key]) | change
    with pytest.raises(VerificationError):
        verify(secret, headers, BODY)


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_delivery_that_is_old_or_of_the_future_is_refused(minutes):
    key, secret = made()
    headers = signed_headers(uuid4(), now() + timedelta(minutes=minutes), BODY, [key])
    with pytest.raises(VerificationError, match="clock"):
        verify(secret, headers, BODY)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "no base64"])
def test_a_secret_that_is_missing_is_an_error(secret):
    headers = signed_headers(uuid4(), now(), BODY, [b""])
    with pytest.raises(ValueError, match="whsec_"):
        verify(secret, headers, BODY)


@pytest.mark.parametrize("body", [b"[]", b"\xff", b"no JSON"])
def test_a_body_that_is_no_event_is_refused(body):
    key, secret = made()
    with pytest.raises(VerificationError):
        verify(secret, signed_headers(uuid4(), now(), body, [key]), body)


def test_another_body_and_missing_headers_are_refused():
    key, secret = made()
    headers = signed_headers(uuid4(), now(), BODY, [key])
    with pytest.raises(VerificationError):
        verify(secret, headers, BODY + b" ")
    for name in headers:
        rest = {other: value for other, value in headers.items() if other != name}
        with pytest.raises(VerificationError):
            verify(secret, rest, BODY)
