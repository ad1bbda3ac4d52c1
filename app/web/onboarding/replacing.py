"""A rotation in the words of the onboarding page.

It shows what is done, and the next step of the customer's administrator.
"""

from app.rotation.rotations import RotationStatus
from app.store.models.states import RotationState
from app.web.onboarding.progress import ProgressStep, StepState

_S = RotationState
GOES_ON = frozenset({_S.OPEN, _S.READY, _S.RETIRING})


def headline(rotation: RotationStatus) -> str:
    """Return a sentence about the rotation, which follows the status of the connections."""
    waiting = rotation.connections.waiting
    if rotation.state is _S.RETIRING:
        return "Your External ID was replaced: remove the old one from your role."
    if rotation.state is _S.READY:
        return "Your External ID is being replaced: every connected role accepts the new one."
    roles = (
        "your role"
        if rotation.connections.total == 1
        else f"{waiting} role{'s' if waiting > 1 else ''}"
    )
    if rotation.emergency:
        return f"Your External ID was withdrawn: update {roles} to restore access."
    return f"Your External ID is being replaced: update {roles}."


def steps_of(rotation: RotationStatus) -> tuple[ProgressStep, ...]:
    retiring = rotation.state is _S.RETIRING
    accepted = retiring or rotation.state is _S.READY
    counts = rotation.connections
    if accepted:
        update = ProgressStep(
            "Role updated", "done", "It accepts your new External ID, and refuses strangers."
        )
    else:
        so_far = f"{counts.switched} of {counts.total} so far. " if counts.total > 1 else ""
        note = f"{so_far}After an update we check the role twice, two minutes apart."
        update = ProgressStep("Role updated", "now", note)
    state: StepState = "done" if retiring else "now" if accepted else "todo"
    note = "The old one is still accepted, for a day at most." if accepted else ""
    switched = ProgressStep(
        "New one in use", state, "Only the new one is used." if retiring else note
    )
    removed = ProgressStep(
        "Old one removed",
        "now" if retiring else "todo",
        "Update the role once more." if retiring else "",
    )
    return (
        ProgressStep("New External ID", "done", "It is shown below."),
        update,
        switched,
        removed,
    )
