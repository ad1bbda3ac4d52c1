"""How far a connection has come, as the onboarding page tells it. From rows to words; asks nobody.

AWS answers alike for a role that is absent and one that refuses us, so "role found" and "your External ID accepted"
become true together.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.connections import Standing
from app.ids import RoleArn
from app.models import Connection, ConnectionStatus
from app.verification import ACCOUNT, FOREIGN, MISSING, OWN

StepState = Literal["done", "now", "failed", "unclear", "todo"]

STEPS = ("Your stack", "Role found", "Your External ID accepted", "Strangers refused", "Connected")
REFUSED = "No access yet"  # a pending one that was tried
STATUS_WORDS = {
    ConnectionStatus.VERIFIED: "Connected",
    ConnectionStatus.INSECURE: "Needs a change",
    ConnectionStatus.BROKEN: "Access lost",
    ConnectionStatus.PENDING: "Waiting",
    ConnectionStatus.SUSPENDED: "Paused",
}
BEGINS_WITH = {  # where those of a status begin in the list
    ConnectionStatus.VERIFIED: Standing.CONNECTED,
    ConnectionStatus.INSECURE: Standing.INSECURE,
    ConnectionStatus.BROKEN: Standing.BROKEN,
    ConnectionStatus.PENDING: Standing.REFUSED,
    ConnectionStatus.SUSPENDED: Standing.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    state: StepState
    note: str


@dataclass(frozen=True, slots=True)
class Progress:
    """`failed`: the check that did not pass, by name. `may_check`: whether another check can change anything."""

    connection: Connection
    role_name: str
    status: str
    steps: tuple[Step, ...]
    failed: str | None
    unclear: str | None  # why the last check gave no answer, if it gave none
    may_check: bool


WAITING = (
    Step(STEPS[0], "now", "Nothing has reached us yet. Choose a way above; this page follows along."),
    *(Step(name, "todo", "") for name in STEPS[1:]),
)


def progress(connection: Connection) -> Progress:
    checks = {check["name"]: check for check in connection.proof.checks} if connection.proof else {}
    unclear = [check["detail"] for check in checks.values() if check["outcome"] == "inconclusive"]
    failed = next((name for name, check in checks.items() if check["outcome"] == "failed"), None)
    status = connection.status
    settled = status in {ConnectionStatus.VERIFIED, ConnectionStatus.SUSPENDED}
    return Progress(
        connection=connection,
        role_name=RoleArn.parse(connection.role_arn).name,
        status=REFUSED if failed and status is ConnectionStatus.PENDING else STATUS_WORDS[status],
        steps=_steps(status, {name: check["outcome"] for name, check in checks.items()}),
        failed=None if settled else failed,
        unclear=None if settled or not unclear else unclear[0],
        may_check=not settled,
    )


def _steps(status: ConnectionStatus, outcomes: dict[str, str]) -> tuple[Step, ...]:
    if status is ConnectionStatus.VERIFIED:
        return _all_done()
    if status is ConnectionStatus.SUSPENDED:
        return ()
    if outcomes.get(OWN) == "passed" and outcomes.get(ACCOUNT) == "passed":
        return (*_all_done()[:3], _strangers(outcomes), *_todo(4))
    return (*_all_done()[:1], _looking(outcomes, lost=status is ConnectionStatus.BROKEN), *_todo(2))


def _looking(outcomes: dict[str, str], *, lost: bool) -> Step:
    """The step at the role itself, which did not let us in, or not yet."""
    if not outcomes:
        return Step(STEPS[1], "now", "Being checked.")
    if outcomes.get(OWN) == "failed":
        when = "No longer" if lost else "Not yet"
        return Step(STEPS[1], "failed", f"{when}. It is absent, or it refuses us; AWS does not say which.")
    if outcomes.get(ACCOUNT) == "failed":
        return Step(STEPS[1], "failed", "It is in another account than its ARN says.")
    return Step(STEPS[1], "unclear", "AWS gave no clear answer yet.")


def _strangers(outcomes: dict[str, str]) -> Step:
    if outcomes.get(MISSING) == "failed":
        return Step(STEPS[3], "failed", "The role lets us in without your External ID.")
    if outcomes.get(FOREIGN) == "failed":
        return Step(STEPS[3], "failed", "The role lets us in with somebody else's External ID.")
    return Step(STEPS[3], "unclear", "AWS gave no clear answer yet.")


def _all_done() -> tuple[Step, ...]:
    notes = (
        "We know which role to try.",
        "AWS knows it, in the account that its ARN names.",
        "It let us in with it.",
        "It refused us without it, and with another one.",
        "All checks passed.",
    )
    return tuple(Step(name, "done", note) for name, note in zip(STEPS, notes, strict=True))


def _todo(start: int) -> tuple[Step, ...]:
    return tuple(Step(name, "todo", "") for name in STEPS[start:])


def accounts_by_failed_check(shown: Sequence[Progress]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in shown:
        if one.failed:
            found.setdefault(one.failed, []).append(one.connection.account_id)
    return found


def headline(counts: dict[ConnectionStatus, int], shown: Sequence[Progress]) -> str:
    """Where things stand, in one sentence; a screen reader says it whenever it changes."""
    total = sum(counts.values())
    if not total:
        return "Waiting for your stack."
    if total == 1:
        return _headline_of_one(next(iter(counts)), shown)
    connected = counts.get(ConnectionStatus.VERIFIED, 0)
    if connected == total:
        return f"All {total} accounts are connected."
    others = [
        f"{counts[status]} {counted_as(status, counts[status])}" for status in _COUNTED if counts.get(status)
    ]
    return f"{connected} of {total} connected; {', '.join(others)}."


def _headline_of_one(status: ConnectionStatus, shown: Sequence[Progress]) -> str:
    if status is ConnectionStatus.PENDING and not any(one.failed for one in shown):
        if any(one.unclear for one in shown):
            return "Not connected yet: AWS gave no clear answer."
        return "Your role is being checked."
    return _HEADLINES[status]


def counted_as(status: ConnectionStatus, count: int) -> str:
    """What so many accounts are: "needs a change", "need a change"."""
    if status is ConnectionStatus.VERIFIED:
        return "connected"
    return _COUNTED[status][count > 1]


_HEADLINES = {
    ConnectionStatus.PENDING: "Your role does not let us in yet.",
    ConnectionStatus.VERIFIED: "Connected. There is nothing left to do.",
    ConnectionStatus.BROKEN: "Your role no longer lets us in.",
    ConnectionStatus.INSECURE: "Your role also lets strangers in. Its trust policy needs a change.",
    ConnectionStatus.SUSPENDED: "This connection is paused.",
}
_COUNTED = {
    ConnectionStatus.INSECURE: ("needs a change", "need a change"),
    ConnectionStatus.BROKEN: ("lost access", "lost access"),
    ConnectionStatus.PENDING: ("waiting", "waiting"),
    ConnectionStatus.SUSPENDED: ("paused", "paused"),
}


def trust_command(role_name: str, trust_policy: dict[str, Any]) -> str:
    """What puts the trust policy right, for a terminal."""
    return (
        f"aws iam update-assume-role-policy --role-name {shlex.quote(role_name)} \\\n"
        f"  --policy-document {shlex.quote(json.dumps(trust_policy))}"
    )
