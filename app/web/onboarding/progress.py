"""The progress of connections in the words of the onboarding page, from their rows alone.

AWS gives the same answer for a role that does not exist and for one that refuses. So "role found"
and "your External ID accepted" become true together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from app.clock import now
from app.connections.listing import ListPosition, Urgency
from app.ids import RoleArn
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.store.models import Connection, ConnectionStatus, Verdict, states

Counts = dict[ConnectionStatus, int]  # connections by status
StepState = Literal["done", "now", "failed", "unclear", "todo"]
Way = Literal["stack", "organization"]

REFUSED = "No access yet"  # a pending role whose proof failed
LOOKING = "looking"
_TO_APPROVE = (
    "All checks passed. This role may change things, so the vendor must approve it before use."
)


class _Shown(NamedTuple):
    """The texts of a status, and its first position in the list.

    The texts are for a list, for the headline, and after a number of accounts.
    """

    listed: str
    headline: str
    counted: str
    begins: Urgency


NOTHING_LEFT = " There is nothing left to do."
_CONNECTED = f"Connected.{NOTHING_LEFT}"
_INSECURE = "Your role can be used without your External ID. Its trust policy needs a change."
_LOST = "Your role no longer lets us in."
_NOT_YET = "Your role does not let us in yet."
# In the order of the counts on the page.
_STATUSES = {
    ConnectionStatus.VERIFIED: _Shown("Connected", _CONNECTED, "connected", Urgency.CONNECTED),
    ConnectionStatus.INSECURE: _Shown(
        "Needs a change", _INSECURE, "needs a change", Urgency.INSECURE
    ),
    ConnectionStatus.BROKEN: _Shown("Access lost", _LOST, "lost access", Urgency.BROKEN),
    ConnectionStatus.PENDING: _Shown("Waiting", _NOT_YET, "waiting", Urgency.REFUSED),
    ConnectionStatus.ENDED: _Shown(
        "Ended", "This access has ended, as you set.", "ended", Urgency.ENDED
    ),
    ConnectionStatus.SUSPENDED: _Shown(
        "Paused", "This connection is paused.", "paused", Urgency.PAUSED
    ),
}

_AT_REST = {ConnectionStatus.ENDED, ConnectionStatus.SUSPENDED}  # the page shows no steps


class ProgressStep(NamedTuple):
    name: str
    state: StepState
    note: str


class Progress(NamedTuple):
    """A connection's progress.

    `topic`: what the page explains. It is the check that failed, the fate of the stack, or LOOKING.
    """

    connection: Connection
    role_name: str
    status: str
    steps: tuple[ProgressStep, ...]
    topic: str | None
    unclear: str | None  # why the latest check gave no answer, if so
    warnings: tuple[str, ...]

    @property
    def ended(self) -> str | None:
        """The time when the access ended, if the customer set an end."""
        until = self.connection.ended_at
        return f"{until:%-d %B %Y, %H:%M} UTC" if until else None

    @property
    def lets_in(self) -> str | None:
        """A description of how a role lets strangers in.

        None for any other role, and if the latest proof can't say.
        """
        why = self.connection.why if self.connection.status is ConnectionStatus.INSECURE else None
        return None if why == states.SEE_VERIFICATION[ConnectionStatus.INSECURE] else why

    @property
    def settled(self) -> bool:
        """Return whether the page has nothing to wait for."""
        return self.connection.status is ConnectionStatus.VERIFIED and self.topic is None


class _Gone(NamedTuple):
    status: str
    headline: str
    note: str


_GONE: dict[str | None, _Gone] = {
    states.StackState.ROLLED_BACK: _Gone(
        "Rolled back",
        "Your stack was rolled back.",
        "CloudFormation rolled it back, and removes its role.",
    ),
    states.StackState.DELETED: _Gone(
        "Stack deleted",
        "Your stack was deleted.",
        "It was deleted, and CloudFormation removes its role.",
    ),
}

_DONE = (
    ProgressStep("Your stack", "done", "We know which role to try."),
    ProgressStep("Role found", "done", "It is in the account that its ARN names."),
    ProgressStep("Your External ID accepted", "done", "The role accepted your External ID."),
    ProgressStep(
        "Strangers refused", "done", "It refused us without your External ID, and with another one."
    ),
    ProgressStep("Connected", "done", "All checks passed."),
)


def _step(number: int, state: StepState, note: str) -> ProgressStep:
    return ProgressStep(_DONE[number].name, state, note)


def _todo(start: int) -> tuple[ProgressStep, ...]:
    return tuple(ProgressStep(step.name, "todo", "") for step in _DONE[start:])


WAITING = (
    _step(0, "now", "No role has arrived yet. Create it as shown above; this page updates itself."),
    *_todo(1),
)


def progress_of(connection: Connection) -> Progress:
    proof = connection.proof
    checks = (
        {check["name"]: check for check in proof.checks if check["name"] != states.ONLY_US}
        if proof
        else {}
    )
    outcomes = {name: check["outcome"] for name, check in checks.items()}
    unclear = [
        name for name, said in outcomes.items() if said == "inconclusive" and name != states.DEMANDS
    ]
    topic, status = _topic(connection, outcomes), connection.status
    settled = status in {ConnectionStatus.VERIFIED, *_AT_REST}
    return Progress(
        connection=connection,
        role_name=RoleArn.parse(connection.role_arn).name,
        status=_words(connection, topic),
        steps=_steps(connection, topic, outcomes),
        topic=topic,
        unclear=None if settled or not unclear else checks[unclear[0]]["detail"],
        warnings=tuple(warning["detail"] for warning in proof.warnings) if proof else (),
    )


def _topic(connection: Connection, outcomes: dict[str, str]) -> str | None:
    status, gone = connection.status, connection.stack if connection.stack in _GONE else None
    if status in _AT_REST:
        return None
    if status is ConnectionStatus.VERIFIED:
        return gone
    if outcomes.get(states.OWN) != "passed" and (gone or connection.is_only_an_account):
        return gone or LOOKING
    return next((name for name, outcome in outcomes.items() if outcome == "failed"), None)


def _words(connection: Connection, topic: str | None) -> str:
    """Return the status of one connection in a list."""
    if connection.status is not ConnectionStatus.PENDING or topic is None:
        return _STATUSES[connection.status].listed
    if topic == LOOKING:
        return "Looking" if connection.due_at else "Not found"
    return _GONE[topic].status if topic in _GONE else REFUSED


def _steps(
    connection: Connection, topic: str | None, outcomes: dict[str, str]
) -> tuple[ProgressStep, ...]:
    status = connection.status
    if status in _AT_REST:
        return ()
    if topic == LOOKING:
        return (_search(connection), *_todo(1))
    if topic in _GONE:
        return (_step(0, "failed", _GONE[topic].note), *_todo(1))
    if status is ConnectionStatus.VERIFIED:
        return (*_DONE[:4], _step(4, "done", _proven(connection)))
    if outcomes.get(states.OWN) == "passed" and outcomes.get(states.ACCOUNT) == "passed":
        return (*_DONE[:3], *_last_steps(connection, outcomes))
    return (*_DONE[:1], _looking(outcomes, lost=status is ConnectionStatus.BROKEN), *_todo(2))


def _proven(connection: Connection) -> str:
    """Return how often the connection was proven, and when last."""
    proof = connection.proof
    if proof is None or proof.verdict is not Verdict.PROVEN:
        return _DONE[4].note
    if proof.count == 1:
        return f"{_DONE[4].note} Proven {_ago(proof.checked_at)}."
    since = f"{proof.first_at.day} {proof.first_at:%B %Y}"
    return (
        f"{_DONE[4].note} Proven {proof.count} times since {since}, last {_ago(proof.checked_at)}."
    )


def _ago(at: datetime) -> str:
    minutes = int((now() - at).total_seconds() // 60)
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        if number := max(minutes, 0) // size:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def _last_steps(connection: Connection, outcomes: dict[str, str]) -> tuple[ProgressStep, ...]:
    """Return the last steps, for a role that accepted us.

    They show whether it refuses strangers, and whether the vendor must approve it.
    """
    if (
        connection.awaiting_approval
        and connection.proof
        and connection.proof.verdict is Verdict.PROVEN
    ):
        return (_DONE[3], _step(4, "now", _TO_APPROVE))
    return (_strangers(outcomes), *_todo(4))


def _search(connection: Connection) -> ProgressStep:
    """Return the first step of a role that was named by its account alone."""
    if connection.due_at is None:
        return _step(0, "failed", "We found no role that lets us in, and have stopped looking.")
    return _step(0, "now", "Looking for its role in the account that was entered.")


def _looking(outcomes: dict[str, str], *, lost: bool) -> ProgressStep:
    """Return the step of a role that has not let us in."""
    if not outcomes:
        return _step(1, "now", "Being checked.")
    if outcomes.get(states.OWN) == "failed":
        when = "No longer" if lost else "Not yet"
        return _step(
            1, "failed", f"{when}. It is absent, or it refuses us; AWS does not say which."
        )
    if outcomes.get(states.ACCOUNT) == "failed":
        return _step(1, "failed", "It is in another account than its ARN says.")
    return _step(1, "unclear", "AWS gave no clear answer yet.")


_LETS_IN = {
    states.MISSING: "The role lets us in without your External ID.",
    states.FOREIGN: "The role lets us in with somebody else's External ID.",
    states.STRANGER: "The role lets in another account than ours.",
    states.DEMANDS: "A statement of its trust policy lets us in without your External ID.",
}


def _strangers(outcomes: dict[str, str]) -> ProgressStep:
    failed = next((note for name, note in _LETS_IN.items() if outcomes.get(name) == "failed"), None)
    return (
        _step(3, "failed", failed)
        if failed
        else _step(3, "unclear", "AWS gave no clear answer yet.")
    )


def made_by(connections: Sequence[Connection], kit: Kit) -> Way | None:
    """Return how all of these roles were created.

    Return None if no stack registered one of them, or if they differ.
    """
    ways = {
        _way_of(connection.stack_id or "", kit.update.stack_set.name) for connection in connections
    }
    return ways.pop() if len(ways) == 1 else None


def _way_of(stack_id: str, organization: str) -> Way | None:
    """Return how the role of this stack was created, or None if that is not known.

    `organization`: the name of the kit's stack for a whole organization, and of its StackSet.
    """
    _, _, name = stack_id.partition(":stack/")
    if name.startswith((f"{organization}/", f"StackSet-{organization}-")):
        return "organization"
    return None if not name or name.startswith("StackSet-") else "stack"


def accounts_by_topic(shown: Sequence[Progress]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in shown:
        if one.topic:
            found.setdefault(one.topic, []).append(one.connection.account_id)
    return found


def headline(counts: Counts, shown: Sequence[Progress]) -> str:
    """Return the status in one sentence, which screen readers announce when it changes."""
    total = sum(counts.values())
    if not total:
        return "Waiting for your stack."
    if total == 1:
        if shown and shown[0].ended:
            return f"This access ended on {shown[0].ended}, as you set."
        return _headline_of_one(next(iter(counts)), shown[0] if shown else None)
    connected = counts.get(ConnectionStatus.VERIFIED, 0)
    if connected == total:
        return f"All {total} accounts are connected."
    others = [
        f"{n} {words}"
        for words, status, n, _ in counted(counts)
        if status is not ConnectionStatus.VERIFIED
    ]
    return f"{connected} of {total} connected; {', '.join(others)}."


def _headline_of_one(status: ConnectionStatus, one: Progress | None) -> str:
    """Return the headline for one connection. `one` is None if it was deleted a moment ago."""
    topic = one.topic if one else None
    if topic == LOOKING:
        return (
            "Looking for your role."
            if one and one.connection.due_at
            else "Your role was not found."
        )
    if topic in _GONE:
        return _GONE[topic].headline
    if status is ConnectionStatus.PENDING and topic is None:
        if one and one.unclear:
            return "Not connected yet: AWS gave no clear answer."
        return "Your role is being checked."
    if one and one.lets_in and (one.connection.verified_at or topic == states.STRANGER):
        return f"{one.lets_in} Its trust policy needs a change."
    return _STATUSES[status].headline


def counted(counts: Counts) -> list[tuple[str, ConnectionStatus, int, ListPosition]]:
    """Return the number of connections in each status that occurs.

    Each item has the words after the number, the status, the number, and the first position in the
    list.
    """
    found = []
    for status, shown in _STATUSES.items():
        if count := counts.get(status, 0):
            words = shown.counted.replace("needs", "need") if count > 1 else shown.counted
            found.append((words, status, count, ListPosition(shown.begins)))
    return found


def archive_commands(kit: Kit) -> str:
    """Return the commands that archive Access Analyzer's findings of this role and the broker.

    Run them with credentials of the account. The finding names the vendor's account. If the trust
    policy's condition narrows it, the finding names the broker.
    """
    _, partition, _, _, account, _ = kit.broker_principal_arn.split(":", 5)
    principals = [account, f"arn:{partition}:iam::{account}:root", kit.broker_principal_arn]
    wanted = {"resource": ["ROLE"], "principal.AWS": principals, "isPublic": ["false"]}
    criteria = {key: {"eq": values} for key, values in wanted.items()}
    return filled("archive-findings.sh.jinja", kit=kit, criteria=criteria)
