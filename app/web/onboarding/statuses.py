"""The statuses of connections and of a rotation, in the words of the onboarding page.

They are read from the rows alone. An open page asks for them every few seconds.

AWS gives the same answer for a role that does not exist and for one that refuses. So "role found"
and "your External ID accepted" become true together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from app.clock import now
from app.connections.kit_names import Way, way_of
from app.connections.urgency import ListPosition, Urgency
from app.ids import RoleArn
from app.onboarding.kit import Kit
from app.rotation.status import RotationStatus
from app.store.models import Connection, ConnectionStatus, Proof, RotationState, StackState, Verdict
from app.store.models.connection_status import SEE_VERIFICATION
from app.store.models.proof import ACCOUNT, DEMANDS, FOREIGN, MISSING, ONLY_US, OWN, STRANGER

Counts = dict[ConnectionStatus, int]  # connections by status
StepState = Literal["done", "now", "failed", "unclear", "todo"]
Step = tuple[int, StepState, str]  # the number of the current step, its state, and its note

LOOKING = "looking"
_NOT_FOUND = "not found"  # a search that has ended; on the page, its topic is LOOKING
NOTHING_LEFT = " There is nothing left to do."
_WITHDRAWN = "Your External ID was withdrawn: your role must accept the new one."
_AT_REST = {ConnectionStatus.ENDED, ConnectionStatus.SUSPENDED}  # the page shows no steps for them


class _StatusTexts(NamedTuple):
    """The texts for a status, and where its connections begin in the list.

    The texts are for a list, for the headline, and after a number of roles.
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


class _Situation(NamedTuple):
    """The texts about a search or a stack: for a list, for the headline, and for the first step."""

    listed: str
    headline: str
    state: StepState
    note: str


_SITUATIONS: dict[str | None, _Situation] = {
    LOOKING: _Situation(
        "Looking",
        "Looking for your role.",
        "now",
        "Looking for it in the account that was entered.",
    ),
    _NOT_FOUND: _Situation(
        "Not found",
        "Your role was not found.",
        "failed",
        "We found no role that lets us in, and have stopped looking.",
    ),
    StackState.ROLLED_BACK: _Situation(
        "Rolled back",
        "Your stack was rolled back.",
        "failed",
        "CloudFormation rolled it back, and removes its role.",
    ),
    StackState.DELETED: _Situation(
        "Stack deleted",
        "Your stack was deleted.",
        "failed",
        "It was deleted, and CloudFormation removes its role.",
    ),
}

_CHECKED = "All checks passed."
# Each step's name, and its note when it is done.
_LATER_STEPS = (
    ("Role found", "It is in the account that its ARN names."),
    ("Your External ID accepted", "The role accepted your External ID."),
    ("Others refused", "It refused us without your External ID, and with another one."),
    ("Connected", _CHECKED),
)
_WITH_A_STACK = (("Your stack", "We know which role to try."), *_LATER_STEPS)
_BY_HAND = (("Your role", "We know which role to try."), *_LATER_STEPS)
# The notes of failed steps, by the number of the step and the check that failed
_FAILED = {
    1: {
        OWN: "Not yet. It is absent, or it refuses us; AWS does not say which.",
        ACCOUNT: "It is in another account than its ARN says.",
    },
    3: {
        MISSING: "The role lets us in without your External ID.",
        FOREIGN: "The role lets us in with somebody else's External ID.",
        STRANGER: "The role lets in others than us.",
        DEMANDS: "A statement of its trust policy does not demand your External ID alone.",
    },
}
_TO_APPROVE = "All checks passed. This role may change things, so we must approve it before use."


class ProgressStep(NamedTuple):
    name: str
    state: StepState
    note: str


_AWAITING_APPROVAL = ProgressStep(_LATER_STEPS[-1][0], "now", _TO_APPROVE)


class Progress(NamedTuple):
    """A connection's progress.

    `topic`: what the page explains: the check that failed, the stack's state, or LOOKING.
    """

    connection: Connection
    topic: str | None
    situation: _Situation | None
    steps: list[ProgressStep]
    unclear: str | None  # why the latest check gave no clear answer; None if it did

    @property
    def role_name(self) -> str:
        return RoleArn.parse(self.connection.role_arn).name

    @property
    def status(self) -> str:
        """The status of the connection in a list."""
        if self.is_withdrawn:
            return _STATUSES[ConnectionStatus.INSECURE].listed
        if self.steps and self.steps[-1] == _AWAITING_APPROVAL:
            return "To be approved"
        if self.connection.status is not ConnectionStatus.PENDING or self.topic is None:
            return _STATUSES[self.connection.status].listed
        return self.situation.listed if self.situation else "No access yet"

    @property
    def is_withdrawn(self) -> bool:
        """Return whether nothing is issued until the role accepts the new External ID."""
        is_verified = self.connection.status is ConnectionStatus.VERIFIED
        return is_verified and self.connection.external_id_row.is_withdrawn

    @property
    def ended(self) -> str | None:
        """The time when the access ended, if the customer set an end."""
        until = self.connection.ended_at
        return f"{until:%-d %B %Y, %H:%M} UTC" if until else None

    @property
    def lets_in(self) -> str | None:
        """A description of how the role lets others in.

        None if the role lets none in, or if the latest proof does not show how.
        """
        why, insecure = self.connection.why, ConnectionStatus.INSECURE
        if self.connection.status is not insecure or why == SEE_VERIFICATION[insecure]:
            return None
        return why


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
    "No role has arrived yet. Create it as shown above; it then appears here.",
)


def progress_of(connection: Connection) -> Progress:
    outcomes: dict[str, str] = {}
    unclear: str | None = None
    for check in connection.proof.checks if connection.proof else ():
        name, outcome = check["name"], check["outcome"]
        if name != ONLY_US:
            outcomes[name] = outcome
            if outcome == "inconclusive" and name != DEMANDS:
                unclear = unclear or check["detail"]
    if connection.status in _AT_REST:
        return Progress(connection, None, None, [], None)
    topic = _topic(connection, outcomes)
    has_ended = topic == LOOKING and connection.due_at is None
    situation = _SITUATIONS.get(_NOT_FOUND if has_ended else topic)
    if situation:
        step: Step = 0, situation.state, situation.note
    elif connection.status is ConnectionStatus.VERIFIED:
        step = _verified_step(connection)
    else:
        step = _tested_step(connection, outcomes)
    if connection.status is ConnectionStatus.VERIFIED:
        unclear = None
    has_stack = connection.stack is not None or connection.stack_id is not None
    steps = steps_at(_WITH_A_STACK if has_stack else _BY_HAND, *step)
    return Progress(connection, topic, situation, steps, unclear)


def _topic(connection: Connection, outcomes: dict[str, str]) -> str | None:
    gone = connection.stack if connection.stack in _SITUATIONS else None
    if connection.status is ConnectionStatus.VERIFIED:
        return gone
    if outcomes.get(OWN) != "passed" and (gone or connection.is_only_an_account):
        return gone or LOOKING
    for name, outcome in outcomes.items():
        if outcome == "failed":
            return name
    return None


def _verified_step(connection: Connection) -> Step:
    if connection.external_id_row.is_withdrawn:
        return 2, "failed", "It was withdrawn. Your role must accept the new one."
    return 4, "done", _proven(connection.proof)


def _tested_step(connection: Connection, outcomes: dict[str, str]) -> Step:
    """Return the step of a connection whose latest proof did not make it verified."""
    if not outcomes:
        return 1, "now", "Being checked."
    number = 1
    if outcomes.get(OWN) == outcomes.get(ACCOUNT) == "passed":
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
    for size, unit in ((1440, "day"), (60, "hour")):
        if number := max(minutes, 0) // size:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "less than an hour ago"  # minutes would change an open page while it is read


def made_by(connections: Sequence[Connection], kit: Kit) -> Way | None:
    """Return the way in which all of these roles were created.

    Returns None if no stack registered one of them, or if they differ.
    """
    ways = {way_of(connection.stack_id, kit.update.stack_set.name) for connection in connections}
    return ways.pop() if len(ways) == 1 else None


def headline(counts: Counts, shown: Sequence[Progress]) -> str:
    """Return the status in one sentence, which screen readers announce when it changes."""
    total, connected = sum(counts.values()), counts.get(ConnectionStatus.VERIFIED, 0)
    if total == 1 and shown:
        return _headline_of_one(shown[0])
    if total <= 1:  # the only connection was deleted a moment ago
        return "Waiting for your stack."
    if connected == total:
        return f"All {total} roles are connected."
    parts = [f"{count} {words}" for words, _, count, _ in counted(counts)]
    if connected:  # `counted` lists it first
        del parts[0]
    return f"{connected} of {total} connected; {', '.join(parts)}."


def _headline_of_one(progress: Progress) -> str:
    connection, topic, lets_in = progress.connection, progress.topic, progress.lets_in
    if progress.ended:
        return f"This access ended on {progress.ended}, as you set."
    if progress.situation:
        return progress.situation.headline
    if connection.status is ConnectionStatus.PENDING and topic is None:
        return _headline_of_tested(progress)
    if lets_in and (connection.verified_at or topic == STRANGER):
        return f"{lets_in} Its trust policy needs a change."
    if connection.status is ConnectionStatus.VERIFIED:
        return _headline_of_verified(connection)
    return _STATUSES[connection.status].headline


def _headline_of_verified(connection: Connection) -> str:
    if connection.external_id_row.is_withdrawn:
        return _WITHDRAWN
    if connection.proof and connection.proof.warnings:
        return "Connected. There is something to look at: see below."
    return _STATUSES[ConnectionStatus.VERIFIED].headline


def _headline_of_tested(progress: Progress) -> str:
    """Return the headline of a pending connection in whose latest proof no check failed."""
    if progress.steps[-1] == _AWAITING_APPROVAL:
        return "Your role passed all checks. We must approve it; you have nothing left to do."
    unclear = "Not connected yet: AWS gave no clear answer."
    return unclear if progress.unclear else "Your role is being checked."


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


# In a rotation: each step's name, and its note when it is done.
_ROTATION_STEPS = (
    ("New External ID", "It is shown below."),
    ("Role updated", "It accepts your new External ID, and refuses anybody else."),
    ("New one in use", "Only the new one is used."),
    ("Old one removed", ""),
)


def with_rotation(summary: str, tasks: Sequence[str], rotation: RotationStatus | None) -> str:
    """Return the summary of the connections' status, with sentences about what is to be done."""
    if rotation is None:
        return " ".join((summary.removesuffix(NOTHING_LEFT), *tasks)) if tasks else summary
    # In an emergency, its update is all that counts
    so_far = summary.removesuffix(NOTHING_LEFT).removeprefix(_WITHDRAWN)
    words = so_far, *(() if rotation.emergency else tasks), _rotation_headline(rotation)
    return " ".join(filter(None, words))


def _rotation_headline(rotation: RotationStatus) -> str:
    if rotation.state is RotationState.RETIRING:
        return "Your External ID was replaced: remove the old one from your role."
    if rotation.state is RotationState.READY:
        return "Your External ID is being replaced: every connected role accepts the new one."
    roles, waiting = "your role", rotation.connections.waiting
    if rotation.connections.total != 1:
        roles = f"{waiting} role{'s' if waiting > 1 else ''}"
    if rotation.emergency:
        return f"Your External ID was withdrawn: update {roles} to restore access."
    return f"Your External ID is being replaced: update {roles}."


def rotation_steps(rotation: RotationStatus) -> list[ProgressStep]:
    """Return the steps of a rotation, up to the next one of the customer's administrator."""
    if rotation.state is RotationState.RETIRING:
        return steps_at(_ROTATION_STEPS, 3, "now", "Update the role once more.")
    if rotation.state is RotationState.READY:
        note = "The old one is still accepted for a while."
        return steps_at(_ROTATION_STEPS, 2, "now", note)
    twice = "After an update we check the role twice, two minutes apart."
    note = "We check the role after an update." if rotation.emergency else twice
    counts = rotation.connections
    if counts.total > 1:
        note = f"{counts.switched} of {counts.total} so far. {note}"
    return steps_at(_ROTATION_STEPS, 1, "now", note)
