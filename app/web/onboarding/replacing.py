"""A rotation in the words of the onboarding page.

It shows what is done, and the next step of the customer's administrator.
"""

from app.rotation.rotations import RotationStatus
from app.store.models.states import RotationState
from app.web.onboarding.progress import ProgressStep, steps_at

# Each step's name, and its note when it is done.
_STEPS = (
    ("New External ID", "It is shown below."),
    ("Role updated", "It accepts your new External ID, and refuses strangers."),
    ("New one in use", "Only the new one is used."),
    ("Old one removed", ""),
)


def headline(rotation: RotationStatus) -> str:
    """Return a sentence about the rotation, to put after the status of the connections."""
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


def steps_of(rotation: RotationStatus) -> list[ProgressStep]:
    if rotation.state is RotationState.RETIRING:
        return steps_at(_STEPS, 3, "now", "Update the role once more.")
    if rotation.state is RotationState.READY:
        return steps_at(_STEPS, 2, "now", "The old one is still accepted, for a day at most.")
    note, counts = (
        "After an update we check the role twice, two minutes apart.",
        rotation.connections,
    )
    if counts.total > 1:
        note = f"{counts.switched} of {counts.total} so far. {note}"
    return steps_at(_STEPS, 1, "now", note)
