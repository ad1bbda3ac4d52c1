"""Credentials come again before they end: when, by how many threads, and what happens when there
are none.
"""

import datetime as dt
import logging
from contextlib import closing

import deputy_client
import pytest

from tests.client.people import issued, secret_of
from tests.support.rows import at_once

DOWN = (503, {}, b"")


def key_of(credentials):
    return credentials.get_frozen_credentials().access_key


@pytest.mark.parametrize(("duration", "asks"), [(3600, 900), (1800, 900), (1500, 750), (900, 450)])
def test_a_session_asks_again_a_quarter_of_an_hour_before_its_end(
    deputy, place, clock, duration, asks
):
    """Of a session that came with less than half an hour, at half of its life."""
    credentials = place.session(duration_seconds=duration).get_credentials()
    clock.shift(duration - asks - 5)
    key_of(credentials)
    assert len(deputy.requests) == 1
    clock.shift(6)
    key_of(credentials)
    assert len(deputy.requests) == 2


def test_the_short_ones_of_a_cache_are_not_asked_for_again_and_again(deputy, place, clock):
    """Deputy may hand out what has ten minutes left; botocore's own windows would renew that at
    every call.
    """
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)).isoformat()
    deputy.instead = lambda: issued(end)
    credentials = place.session().get_credentials()
    for _ in range(60):
        assert key_of(credentials) == "a"
        clock.shift(9)
    assert len(deputy.requests) < 7


@pytest.mark.parametrize("passed", [3000, 4000])
def test_many_threads_make_one_call(deputy, place, clock, passed):
    """In the advisory window, and after the end."""
    credentials = place.session().get_credentials()
    first = key_of(credentials)
    clock.shift(passed)
    got = at_once([lambda: key_of(credentials)] * 32)
    assert len(deputy.requests) == 2
    assert len(set(got)) <= 2
    assert passed == 3000 or first not in got


def test_a_rotated_key_is_taken_up(deputy, place, clock, monkeypatch, tmp_path):
    file = tmp_path / "key"
    file.write_text(place.key)
    monkeypatch.setenv("DEPUTY_API_KEY_FILE", str(file))
    credentials = deputy_client.session(*place.ids).get_credentials()
    new = place.world.worker(place.tenant).key
    file.write_text(f"{new}\n")
    clock.shift(3590)
    key_of(credentials)
    assert [request["HTTP_AUTHORIZATION"] for request in deputy.requests] == [
        f"Bearer {place.key}",
        f"Bearer {new}",
    ]


def test_while_they_are_good_a_deputy_that_is_down_is_not_noticed(
    deputy, place, clock, pauses, monkeypatch
):
    moment = [1000.0]
    monkeypatch.setattr("deputy_client.credentials.monotonic", lambda: moment[0])
    credentials = place.session().get_credentials()
    first = key_of(credentials)
    deputy.instead = lambda: DOWN
    clock.shift(3000)
    for _ in range(10):
        assert key_of(credentials) == first
    assert len(deputy.requests) == 2, "one attempt, and then a rest"
    moment[0] += 31
    assert key_of(credentials) == first
    assert len(deputy.requests) == 3
    deputy.instead = lambda: None
    moment[0] += 31
    assert key_of(credentials) != first
    assert pauses == []


def test_while_deputy_is_away_a_session_is_used_to_its_end(deputy, place, clock, pauses, caplog):
    """Also in the last five minutes, by the thread that asks and by those that would wait for
    it. What is logged is no secret.
    """
    caplog.set_level(logging.WARNING)
    credentials = place.session().get_credentials()
    first = key_of(credentials)
    deputy.instead = lambda: DOWN
    clock.shift(3500)
    for _ in range(3):
        assert key_of(credentials) == first
    assert len(deputy.requests) == 2, "one attempt, and then a rest"
    clock.shift(95)
    assert key_of(credentials) == first
    assert pauses == []
    clock.shift(10)
    with pytest.raises(deputy_client.Unreachable, match="Deputy is down or busy"):
        key_of(credentials)
    assert {"deputy_client", "botocore.credentials"} <= {record.name for record in caplog.records}
    assert "Deputy is down or busy" in caplog.text
    assert secret_of(place.key) not in caplog.text
    deputy.instead = lambda: None
    clock.shift(1)
    credentials._failure = None  # the second in which threads share it
    assert key_of(credentials) != first


def test_a_refusal_in_the_last_five_minutes_is_raised_at_once(deputy, place, clock):
    """Unlike a Deputy that can't be reached."""
    session = place.session(region_name="us-east-1")
    place.admin("/suspend", {"reason": "unpaid"})
    with closing(session.client("s3")) as s3:
        clock.shift(3200)
        assert s3.list_buckets()
        clock.shift(200)
        with pytest.raises(deputy_client.Suspended, match="request"):
            s3.list_buckets()


def test_threads_that_queue_behind_a_failure_share_it(deputy, place, clock, pauses):
    credentials = place.session().get_credentials()
    deputy.instead = lambda: DOWN
    clock.shift(3601)
    errors = at_once([lambda: key_of(credentials)] * 16)
    assert {type(error) for error in errors} == {deputy_client.Unreachable}
    assert len({id(error) for error in errors}) == 16
    assert len(deputy.requests) == 1 + 4, "not four for each thread"
