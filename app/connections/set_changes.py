"""From which permission set a role was made, as its stack and its tag say, and what that changes."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from app.audit import Action, Actor, log as audit
from app.permissions.permission_sets import PermissionSets, read_label
from app.store.models import Connection, PermissionSetVersion


def apply_set_label(db: Session, sets: PermissionSets, actor: Actor, connection: Connection, label: str | None) -> None:
    """`label`: name and version, unverified. It takes effect only for the connection's own set, and one asked for."""
    if (named := read_label(label or "")) and _is_known(db, sets, *named):
        with recording_a_move(db, actor, connection):
            connection.role_was_made_from(*named)


def _is_known(db: Session, sets: PermissionSets, name: str, version: int) -> bool:
    """Whether that version of the set is asked for now, or was published."""
    chosen = sets.get(name)
    asked_for = chosen is not None and chosen.version == version
    return asked_for or db.get(PermissionSetVersion, (name, version)) is not None


@contextmanager
def recording_a_move(db: Session, actor: Actor, connection: Connection) -> Iterator[None]:
    """Put it into the audit log if the connection has another permission set afterwards."""
    before = connection.permission_set
    yield
    if connection.permission_set != before:
        details = {"from": before, "to": connection.permission_set, "version": connection.permission_set_version}
        audit.record_about(db, actor, Action.CONNECTION_SET_CHANGED, connection, details)
