"""The users of a service in trouble, what they saw, and what must be true of it afterwards.

Those who need nothing of what failed are served throughout, the others are told to come back (503
with Retry-After), all are served again by themselves, and nothing is lost: every answer with
credentials has its audit event, every tenant that was made is there, and a suspended tenant got
nothing.
"""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

from tests.honesty.deployment import Answer, Client, Load
from tests.support.waiting import until

KNOWN, UNKNOWN, OPERATOR, PAGE, SUSPENDED = "known", "unknown", "operator", "page", "suspended"
# Of each kind how many at once, and the seconds between two requests of one.
USERS = {
    KNOWN: (4, 0.03),
    UNKNOWN: (2, 0.05),
    OPERATOR: (1, 0.1),
    PAGE: (1, 0.3),
    SUSPENDED: (1, 0.1),
}
_CALM = 1.0
_BACK = 30.0  # seconds; after each fault everything must work again by itself within them
_STEADY = 5  # answers in a row that a user must get to be served again
GOOD = {KNOWN: 200, UNKNOWN: 200, OPERATOR: 201, PAGE: 200, SUSPENDED: 409}

LASTS = 5.0  # seconds
ALL = (KNOWN, UNKNOWN, OPERATOR, PAGE, SUSPENDED)
WITHOUT_AWS = (KNOWN, OPERATOR, PAGE, SUSPENDED)
WITHOUT_ISSUING = (OPERATOR, PAGE, SUSPENDED)


def during(fault):
    """The fault, for as long as it lasts."""

    def trouble():
        with fault:
            time.sleep(LASTS)

    return trouble


class Asking:
    """What each user asks: workers with several keys, an operator who makes tenants, a customer,
    a suspended tenant.
    """

    def __init__(self, service):
        self._places = [service.place() for _ in range(4)]
        self._suspended = service.place()
        self._admin = service.admin.key
        service.admin.must("POST", f"{self._suspended.tenant}/suspend", {"reason": "test"})
        links = f"{self._places[0].tenant}/onboarding-links"
        url = service.admin.must("POST", links, {}, expect=201)["url"]
        self._page = "/onboard/" + url.partition("/onboard/")[2]
        self._seconds, self._lock = itertools.count(900), threading.Lock()
        self.of: dict[str, Callable[[Client, int], Answer]] = {
            KNOWN: lambda client, turn: self._place(turn).ask(client, turn // 4),
            UNKNOWN: lambda client, turn: self._place(turn).ask_uncached(client, self._new()),
            OPERATOR: self._make_tenant,
            PAGE: lambda client, _: client.ask("GET", self._page),
            SUSPENDED: self._suspended.ask,
        }

    def _make_tenant(self, client, turn):
        return client.ask("POST", "/v1/tenants", {"name": f"T {turn}"}, key=self._admin)

    def _place(self, turn):
        return self._places[turn % len(self._places)]

    def _new(self):
        with self._lock:
            return next(self._seconds)


@dataclass
class Seen:
    """What one kind of user saw while the fault lasted."""

    good: int
    statuses: Counter[int]
    lost: int
    p99: float

    def __str__(self):
        good, total = self.statuses[self.good], self.statuses.total() + self.lost
        parts = [f"all {total:,}" if good == total else f"{good} of {total:,}"]
        for status, count in self.statuses.most_common():
            if status != self.good:
                parts.append(f"{count} got {status}")
        if self.lost:
            parts.append(f"{self.lost} cut")
        if self.statuses:
            parts.append(f"p99 {_short(self.p99)}")
        return ", ".join(parts)


@dataclass
class Row:
    """A line of the table. `back`: seconds until everybody was served again."""

    fault: str
    seen: dict[str, Seen]
    back: float
    checked: int

    def __str__(self):
        users = " | ".join(str(self.seen[kind]) for kind in (KNOWN, UNKNOWN, OPERATOR, PAGE))
        return f"| {self.fault} | {users} | {self.back:.1f} s | nothing of {self.checked:,} |"


# The table of the run, which is printed at its end.
ROWS = []


@contextmanager
def users_of(port, asking):
    with ExitStack() as stack:
        loads = {}
        for kind, (count, pause) in USERS.items():
            clients = [stack.enter_context(contextlib.closing(Client(port))) for _ in range(count)]
            loads[kind] = Load(clients, asking.of[kind], pause=pause)
        for load in loads.values():
            stack.enter_context(load)
        yield loads


def assert_served_meanwhile(service, fault, trouble, *, served=(), cut=False, port=None):
    """Runs `trouble` under load. Fails unless the users in `served` were served throughout, the
    others were told to come back, all are served again soon, and everything that they were given is
    recorded.

    `cut`: connections may be cut, as those of a process that is killed are, and nothing is a 503.
    """
    asking = Asking(service)
    with users_of(port or service.port, asking) as loads:
        time.sleep(_CALM)
        lost, began = {kind: load.lost for kind, load in loads.items()}, time.monotonic()
        trouble()
        over = time.monotonic()
        back = max(_served_again(kind, load, over) for kind, load in loads.items()) - over
        seen = {kind: _seen(kind, load, began, over, lost[kind]) for kind, load in loads.items()}
        time.sleep(_CALM)
    for kind in served:
        assert set(seen[kind].statuses) == {GOOD[kind]}, f"{kind}: {seen[kind]}"
    if cut:
        assert {status for each in seen.values() for status in each.statuses} <= {200, 201, 409}
    else:
        assert sum(load.lost for load in loads.values()) == 0
    ROWS.append(Row(fault, seen, back, assert_nothing_was_lost(service, loads)))
    return ROWS[-1]


def _seen(kind, load, began, over, lost):
    answers = [each for each in load.answers[:] if began < each.ended and each.began < over]
    times = sorted(answer.seconds for answer in answers) or [0.0]
    p99 = times[len(times) * 99 // 100]
    statuses = Counter(answer.status for answer in answers)
    return Seen(GOOD[kind], statuses, load.lost - lost, p99)


def _served_again(kind, load, over):
    """From when on the user was served without a failure."""

    def steady():
        after = [answer for answer in load.answers[:] if answer.began > over]
        after.sort(key=lambda answer: answer.began)
        if [answer.status for answer in after[-_STEADY:]] != [GOOD[kind]] * _STEADY:
            return None
        failed = [answer.ended for answer in after if answer.status != GOOD[kind]]
        return max(failed, default=over)

    return until(steady, f"{kind} is served again", _BACK)


def assert_nothing_was_lost(service, loads):
    """Of what users were given; and nobody was given what they may not have. How many answers
    that is.
    """
    for kind, load in loads.items():
        for answer in load.answers:
            assert answer.status in {GOOD[kind], 503}, f"{kind}: {answer}"
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) > 0, f"{kind}: {answer}"
    service.engine.dispose()  # its connections may be from before
    recorded = Counter(service.issued())
    answers = loads[KNOWN].answers + loads[UNKNOWN].answers
    given = [answer.issued for answer in answers if answer.status == 200]
    assert not Counter(given) - recorded, "credentials without an audit event"
    assert max(recorded.values()) == 1
    created = {UUID(each.json["id"]) for each in loads[OPERATOR].answers if each.status == 201}
    events = [event for event in service.events() if event.action == "tenant.created"]
    assert created <= {event.tenant_id for event in events}, "tenants without an audit event"
    stored = {UUID(str(tenant_id)) for (tenant_id,) in service.sql("SELECT id FROM tenants")}
    assert created <= stored, "tenants were lost"
    return len(given) + len(created)


def _short(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
