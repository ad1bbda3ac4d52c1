"""The users of a service in trouble, what they saw, and what must be true of it afterwards.

Those who need nothing of what failed are served throughout, the others are told to come back (503
with Retry-After), all are served again by themselves, and nothing is lost: every answer with
credentials has its audit event, every tenant that was made is there, and a suspended tenant got
nothing.
"""

import contextlib
import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.honesty.deployment import Answer, Client, Deployment, Load, ProvenConnection
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


def during(fault: AbstractContextManager[object]) -> Callable[[], None]:
    """The fault, for as long as it lasts."""

    def trouble() -> None:
        with fault:
            time.sleep(LASTS)

    return trouble


class Asking:
    """What each user asks: workers with several keys, an operator who makes tenants, a customer,
    a suspended tenant.
    """

    def __init__(self, service: Deployment) -> None:
        self._places = [service.place() for _ in range(4)]
        self._suspended = service.place()
        self._admin = service.admin.key
        service.admin.must("POST", f"{self._suspended.tenant}/suspend", {"reason": "test"})
        made = service.admin.must(
            "POST", f"{self._places[0].tenant}/onboarding-links", {}, expect=201
        )
        self._page = "/onboard/" + made["url"].partition("/onboard/")[2]
        self._seconds, self._lock = itertools.count(900), threading.Lock()
        self.of: dict[str, Callable[[Client, int], Answer]] = {
            KNOWN: lambda client, turn: self._place(turn).ask(client, turn // 4),
            UNKNOWN: lambda client, turn: self._place(turn).ask_uncached(client, self._new()),
            OPERATOR: lambda client, turn: client.ask(
                "POST", "/v1/tenants", {"name": f"T {turn}"}, key=self._admin
            ),
            PAGE: lambda client, _: client.ask("GET", self._page),
            SUSPENDED: self._suspended.ask,
        }

    def _place(self, turn: int) -> ProvenConnection:
        return self._places[turn % len(self._places)]

    def _new(self) -> int:
        with self._lock:
            return next(self._seconds)


@dataclass
class Seen:
    """What one kind of user saw while the fault lasted."""

    good: int
    statuses: Counter[int]
    lost: int
    p99: float

    def __str__(self) -> str:
        bad = Counter({status: n for status, n in self.statuses.items() if status != self.good})
        total = self.statuses.total() + self.lost
        if not bad and not self.lost:
            return f"all {total:,}, p99 {_short(self.p99)}"
        parts = [f"{n} got {status}" for status, n in bad.most_common()]
        parts += [f"{self.lost} cut"] if self.lost else []
        parts += [f"p99 {_short(self.p99)}"] if self.statuses else []
        return f"{self.statuses[self.good]} of {total:,}, {', '.join(parts)}"


@dataclass
class Row:
    """A line of the table. `back`: seconds until everybody was served again."""

    fault: str
    seen: dict[str, Seen]
    back: float
    checked: int

    def __str__(self) -> str:
        users = " | ".join(
            str(self.seen[kind]) for kind in (KNOWN, UNKNOWN, OPERATOR, PAGE) if kind in self.seen
        )
        return f"| {self.fault} | {users} | {self.back:.1f} s | nothing of {self.checked:,} |"


# The table of the run, which is printed at its end.
ROWS: list[Row] = []


@contextmanager
def users_of(port: int, asking: Asking) -> Iterator[dict[str, Load]]:
    with ExitStack() as stack:
        loads = {}
        for kind, (count, pause) in USERS.items():
            clients = [stack.enter_context(contextlib.closing(Client(port))) for _ in range(count)]
            loads[kind] = Load(clients, asking.of[kind], pause=pause)
        for load in loads.values():
            stack.enter_context(load)
        yield loads


def assert_served_meanwhile(
    service: Deployment,
    fault: str,
    trouble: Callable[[], None],
    *,
    served: Sequence[str] = (),
    cut: bool = False,
    port: int | None = None,
) -> Row:
    """Runs `trouble` under load. Fails unless the users in `served` were served throughout, the
    others were told to come back, all are served again soon, and everything that they were given is
    recorded.

    `cut`: connections may be cut, as those of a process that is killed are.
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
    if not cut:
        assert {kind: load.lost for kind, load in loads.items() if load.lost} == {}
    ROWS.append(Row(fault, seen, back, assert_nothing_was_lost(service, loads)))
    return ROWS[-1]


def _seen(kind: str, load: Load, began: float, over: float, lost: int) -> Seen:
    during = [one for one in load.answers[:] if began < one.ended and one.began < over]
    times = sorted(one.seconds for one in during) or [0.0]
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    return Seen(
        GOOD[kind], Counter(one.status for one in during), load.lost - lost, min(p99, times[-1])
    )


def _served_again(kind: str, load: Load, over: float) -> float:
    """From when on the user was served without a failure."""

    def steady() -> float | None:
        after = sorted(
            (one for one in load.answers[:] if one.began > over), key=lambda one: one.began
        )
        if len(after) < _STEADY or any(one.status != GOOD[kind] for one in after[-_STEADY:]):
            return None
        failed = [one.ended for one in after if one.status != GOOD[kind]]
        return max(failed, default=over)

    found: float = until(lambda: steady() or False, f"{kind} is served again", _BACK)
    return found


def assert_nothing_was_lost(service: Deployment, loads: dict[str, Load]) -> int:
    """Of what users were given; and nobody was given what they may not have. How many answers
    that is.
    """
    for kind, load in loads.items():
        for one in load.answers:
            assert one.status in {GOOD[kind], 503}, f"{kind}: {one}"
            assert one.status != 503 or int(one.headers["Retry-After"]) > 0, f"{kind}: {one}"
    service.engine.dispose()  # its connections may be from before
    recorded = Counter(service.issued())
    given = [
        one.issued for kind in (KNOWN, UNKNOWN) for one in loads[kind].answers if one.status == 200
    ]
    assert not Counter(given) - recorded, "credentials without an audit event"
    assert max(recorded.values()) == 1
    made = {one.json["id"] for one in loads[OPERATOR].answers if one.status == 201}
    kept = {str(event.tenant_id) for event in service.events() if event.action == "tenant.created"}
    assert made <= kept, "tenants without an audit event"
    there = {str(id_) for (id_,) in service.sql("SELECT id FROM tenants")}
    assert {id_.replace("-", "") for id_ in made} <= {id_.replace("-", "") for id_ in there}, (
        "tenants were lost"
    )
    return len(given) + len(made)


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
