"""The progress of connections in the onboarding page's words, read from their rows alone.

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
from app.store.models import Connection, ConnectionStatus, Proof, Verdict, states

Counts = dict[ConnectionStatus, int]  # connections by status
StepState = Literal["done", "now", "failed", "unclear", "todo"]
Way = Literal["stack", "organization"]

LOOKING = "looking"
NOTHING_LEFT = " There is nothing left to do."
_AT_REST = {ConnectionStatus.ENDED, ConnectionStatus.SUSPENDED}  # the page shows no steps for them


class _StatusTexts(NamedTuple):
    """The texts for a status, and where its connections begin in the list.

    The texts are for a list, for the headline, and after a number of accounts.
    """

    listed: str
    headline: str
    counted: str
    begins: Urgency


# In the order of the counts on the page.
_STATUSES = {
    ConnectionStatus.VERIFIED: _StatusTexts(
        "Connected", f"Connected.{NOTHING_LEFT}", "connected", Urgency.CONNECTED
    ),
    ConnectionStatus.INSECURE: _StatusTexts(
        "Needs a change",
        "Your role can be used without your External ID. Its trust policy needs a change.",
        "needs a change",
        Urgency.INSECURE,
    ),
    ConnectionStatus.BROKEN: _StatusTexts(
        "Access lost", "Your role no longer lets us in.", "lost access", Urgency.BROKEN
    ),
    ConnectionStatus.PENDING: _StatusTexts(
        "Waiting", "Your role does not let us in yet.", "waiting", Urgency.REFUSED
    ),
    ConnectionStatus.ENDED: _StatusTexts(
        "Ended", "This access has ended, as you set.", "ended", Urgency.ENDED
    ),
    ConnectionStatus.SUSPENDED: _StatusTexts(
        "Paused", "This connection is paused.", "paused", Urgency.PAUSED
    ),
}


class _GoneTexts(NamedTuple):
    """The texts about a stack that is gone: for a list, for the headline, and for its step."""

    listed: str
    headline: str
    note: str


_GONE: dict[str | None, _GoneTexts] = {
    states.StackState.ROLLED_BACK: _GoneTexts(
        "Rolled back",
        "Your stack was rolled back.",
        "CloudFormation rolled it back, and removes its role.",
    ),
    states.StackState.DELETED: _GoneTexts(
        "Stack deleted",
        "Your stack was deleted.",
        "It was deleted, and CloudFormation removes its role.",
    ),
}

_CHECKED = "All checks passed."
# Each step's name, and its note when it is done.
_LATER_STEPS = (
    ("Role found", "It is in the account that its ARN names."),
    ("Your External ID accepted", "The role accepted your External ID."),
    ("Strangers refused", "It refused us without your External ID, and with another one."),
    ("Connected", _CHECKED),
)
_WITH_A_STACK = (("Your stack", "We know which role to try."), *_LATER_STEPS)
_BY_HAND = (("Your role", "We know which role to try."), *_LATER_STEPS)
# The notes of failed steps, by the number of the step and the check that failed
_FAILED = {
    1: {
        states.OWN: "Not yet. It is absent, or it refuses us; AWS does not say which.",
        states.ACCOUNT: "It is in another account than its ARN says.",
    },
    3: {
        states.MISSING: "The role lets us in without your External ID.",
        states.FOREIGN: "The role lets us in with somebody else's External ID.",
        states.STRANGER: "The role lets in another account than ours.",
        states.DEMANDS: "A statement of its trust policy lets us in without your External ID.",
    },
}
_TO_APPROVE = (
    "All checks passed. This role may change things, so the vendor must approve it before use."
)


class ProgressStep(NamedTuple):
    name: str
    state: StepState
    note: str


class Progress(NamedTuple):
    """A connection's progress.

    `topic`: what the page explains: the check that failed, the stack's state, or LOOKING.
    """

    connection: Connection
    role_name: str
    status: str
    steps: list[ProgressStep]
    topic: str | None
    unclear: str | None  # why the latest check gave no clear answer; None if it did

    @property
    def ended(self) -> str | None:
        """The time when the access ended, if the customer set an end."""
        until = self.connection.ended_at
        return f"{until:%-d %B %Y, %H:%M} UTC" if until else None

    @property
    def lets_in(self) -> str | None:
        """A description of how the role lets strangers in.

        None for a role that lets none in, and if the latest proof does not tell how.
        """
        why, insecure = self.connection.why, ConnectionStatus.INSECURE
        if self.connection.status is not insecure or why == states.SEE_VERIFICATION[insecure]:
            return None
        return why

    @property
    def settled(self) -> bool:
        """Return whether the page has nothing to wait for."""
        return self.connection.status is ConnectionStatus.VERIFIED and self.topic is None


def steps_at(
    texts: Sequence[tuple[str, str]], number: int, state: StepState, note: str
) -> list[ProgressStep]:
    """Return the steps: those before number `number` are done, those after it are to do.

    `texts`: the name of each step, and its note when it is done.
    """
    steps = [ProgressStep(name, "done", done) for name, done in texts[:number]]
    steps.append(ProgressStep(texts[number][0], state, note))
    return steps + [ProgressStep(name, "todo", "") for name, _ in texts[number + 1 :]]


WAITING = steps_at(
    _WITH_A_STACK,
    0,
    "now",
    "No role has arrived yet. Create it as shown above; this page updates itself.",
)


def progress_of(connection: Connection) -> Progress:
    outcomes: dict[str, str] = {}
    unclear: str | None = None
    for check in connection.proof.checks if connection.proof else ():
        name, outcome = check["name"], check["outcome"]
        if name != states.ONLY_US:
            outcomes[name] = outcome
            if outcome == "inconclusive" and name != states.DEMANDS:
                unclear = unclear or check["detail"]
    topic = _topic(connection, outcomes)
    steps: list[ProgressStep] = []
    if connection.status in {ConnectionStatus.VERIFIED, *_AT_REST}:
        unclear = None
    if connection.status not in _AT_REST:
        has_stack = connection.stack is not None or connection.stack_id is not None
        texts = _WITH_A_STACK if has_stack else _BY_HAND
        steps = steps_at(texts, *_current_step(connection, topic, outcomes))
    role_name = RoleArn.parse(connection.role_arn).name
    return Progress(connection, role_name, _words(connection, topic), steps, topic, unclear)


def _topic(connection: Connection, outcomes: dict[str, str]) -> str | None:
    gone = connection.stack if connection.stack in _GONE else None
    if connection.status in _AT_REST:
        return None
    if connection.status is ConnectionStatus.VERIFIED:
        return gone
    if outcomes.get(states.OWN) != "passed" and (gone or connection.is_only_an_account):
        return gone or LOOKING
    for name, outcome in outcomes.items():
        if outcome == "failed":
            return name
    return None


def _words(connection: Connection, topic: str | None) -> str:
    """Return the status of one connection in a list."""
    if connection.status is not ConnectionStatus.PENDING or topic is None:
        return _STATUSES[connection.status].listed
    if topic == LOOKING:
        return "Looking" if connection.due_at else "Not found"
    if topic in _GONE:
        return _GONE[topic].listed
    return "No access yet"


def _current_step(
    connection: Connection, topic: str | None, outcomes: dict[str, str]
) -> tuple[int, StepState, str]:
    """Return the number of the connection's current step, with its state and note."""
    if topic == LOOKING:
        if connection.due_at:
            return 0, "now", "Looking for it in the account that was entered."
        return 0, "failed", "We found no role that lets us in, and have stopped looking."
    if topic in _GONE:
        return 0, "failed", _GONE[topic].note
    if connection.status is ConnectionStatus.VERIFIED:
        return 4, "done", _proven(connection.proof)
    if not outcomes:
        return 1, "now", "Being checked."
    return _tested_step(connection, outcomes)


def _tested_step(connection: Connection, outcomes: dict[str, str]) -> tuple[int, StepState, str]:
    """Return the step of a connection whose latest proof did not make it verified."""
    number = 1
    if outcomes.get(states.OWN) == outcomes.get(states.ACCOUNT) == "passed":
        number = 3
        proof = connection.proof
        if connection.awaiting_approval and proof and proof.verdict is Verdict.PROVEN:
            return 4, "now", _TO_APPROVE
    for name, note in _FAILED[number].items():
        if outcomes.get(name) == "failed":
            if connection.status is ConnectionStatus.BROKEN:
                return number, "failed", note.replace("Not yet", "No longer")
            return number, "failed", note
    return number, "unclear", "AWS gave no clear answer yet."


def _proven(proof: Proof | None) -> str:
    """Return the note that says how often the connection was proven, and when last."""
    if proof is None or proof.verdict is not Verdict.PROVEN:
        return _CHECKED
    last = _ago(proof.checked_at)
    if proof.count == 1:
        return f"{_CHECKED} Proven {last}."
    since = f"{proof.first_at.day} {proof.first_at:%B %Y}"
    return f"{_CHECKED} Proven {proof.count} times since {since}, last {last}."


def _ago(time: datetime) -> str:
    minutes = int((now() - time).total_seconds() // 60)
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        if number := max(minutes, 0) // size:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def made_by(connections: Sequence[Connection], kit: Kit) -> Way | None:
    """Return the way in which all of these roles were created.

    Returns None if no stack registered one of them, or if they differ.
    """
    ways = {_way_of(connection, kit.update.stack_set.name) for connection in connections}
    if len(ways) != 1:
        return None
    return ways.pop()


def _way_of(connection: Connection, organization: str) -> Way | None:
    """Return the way in which the connection's role was created, or None if it is unknown.

    `organization`: the name of the kit's stack for a whole organization, and of its StackSet.
    """
    _, _, name = (connection.stack_id or "").partition(":stack/")
    if name.startswith((f"{organization}/", f"StackSet-{organization}-")):
        return "organization"
    if not name or name.startswith("StackSet-"):
        return None
    return "stack"


def accounts_by_topic(shown: Sequence[Progress]) -> dict[str, list[str]]:
    accounts: dict[str, list[str]] = {}
    for progress in shown:
        if progress.topic:
            accounts.setdefault(progress.topic, []).append(progress.connection.account_id)
    return accounts


def headline(counts: Counts, shown: Sequence[Progress]) -> str:
    """Return the status in one sentence, which screen readers announce when it changes."""
    total, connected = sum(counts.values()), counts.get(ConnectionStatus.VERIFIED, 0)
    if total == 1 and shown:
        return _headline_of_one(shown[0])
    if total <= 1:  # the only connection was deleted a moment ago
        return "Waiting for your stack."
    if connected == total:
        return f"All {total} accounts are connected."
    others = counts.copy()
    others.pop(ConnectionStatus.VERIFIED, None)
    parts = [f"{count} {words}" for words, _, count, _ in counted(others)]
    return f"{connected} of {total} connected; {', '.join(parts)}."


def _headline_of_one(progress: Progress) -> str:
    connection, topic, lets_in = progress.connection, progress.topic, progress.lets_in
    if progress.ended:
        return f"This access ended on {progress.ended}, as you set."
    if topic == LOOKING:
        return "Looking for your role." if connection.due_at else "Your role was not found."
    if topic in _GONE:
        return _GONE[topic].headline
    if connection.status is ConnectionStatus.PENDING and topic is None:
        unclear = "Not connected yet: AWS gave no clear answer."
        return unclear if progress.unclear else "Your role is being checked."
    if lets_in and (connection.verified_at or topic == states.STRANGER):
        return f"{lets_in} Its trust policy needs a change."
    return _STATUSES[connection.status].headline


def counted(counts: Counts) -> list[tuple[str, ConnectionStatus, int, ListPosition]]:
    """Return the number of connections in each status that occurs.

    Each item has the words that follow the number, the status, the number, and the position in the
    list where the status begins.
    """
    items = []
    for status, texts in _STATUSES.items():
        words, count = texts.counted, counts.get(status, 0)
        if count > 1:
            words = words.replace("needs", "need")
        if count:
            items.append((words, status, count, ListPosition(texts.begins)))
    return items
