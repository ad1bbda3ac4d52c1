"""The shared cache is gone, slow or lies; the clock jumps. docs/reliability.md has the table."""

import time

import pytest
import redis

from tests.faults.users import ALL, KNOWN, LASTS, UNKNOWN, WITHOUT_ISSUING, assert_served_meanwhile

pytestmark = pytest.mark.faults


def test_the_cache_is_gone(service, valkey):
    def trouble():
        valkey.kill()
        time.sleep(LASTS)
        valkey.start()

    assert_served_meanwhile(service, "Valkey is killed, and empty afterwards", trouble, served=ALL)


def test_the_cache_is_slow(service, valkey):
    def trouble():
        """Each 0.4 s it answers for a moment."""
        with redis.Redis(port=valkey.port) as client:
            ends = time.monotonic() + LASTS
            while time.monotonic() < ends:
                client.execute_command("CLIENT", "PAUSE", "400", "ALL")
                time.sleep(0.42)

    assert_served_meanwhile(service, "Valkey answers after up to 0.4 s", trouble, served=ALL)


def test_the_cache_lies(service, valkey):
    def trouble():
        with redis.Redis(port=valkey.port) as client:
            ends = time.monotonic() + LASTS
            while time.monotonic() < ends:
                names = client.keys("deputy:session:*")
                blobs = client.mget(names) if names else []
                for number, name in enumerate(names):
                    other = blobs[number - 1] or b""
                    client.set(name, (other, other[:-1] + b"x", b"\x00{")[number % 3], px=60_000)
                time.sleep(0.02)

    assert_served_meanwhile(
        service, "Valkey lies: blobs exchanged, cut, spoiled", trouble, served=ALL
    )


@pytest.mark.parametrize(
    ("seconds", "says"), [(7200, "two hours ahead"), (-7200, "two hours back")]
)
def test_the_clock_jumps(service, inside, seconds, says):
    """Of Deputy's machine alone. Nobody is given a session whose life is over by the clocks of
    all others.
    """

    def trouble():
        inside.clock_ahead(seconds)
        time.sleep(LASTS)
        inside.clock_ahead(0)

    row = assert_served_meanwhile(
        service,
        f"the clock of Deputy's machine jumps {says}, and back",
        trouble,
        served=WITHOUT_ISSUING,
    )
    # An event that seems older than the feed is not stored: that of a request that is under way
    # when the clock jumps.
    assert sum(row.seen[kind].statuses[503] for kind in (KNOWN, UNKNOWN)) <= 2 * 6
