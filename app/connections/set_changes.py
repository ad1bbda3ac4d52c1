"""The permission set from which a role was made, as its stack and its tag name it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit import Action, Actor, log as audit
from app.permissions.permission_sets import PermissionSets, read_label
from app.store.models import Connection, PermissionSetVersion


def apply_set_label(
    db: Session,
    sets: PermissionSets,
    actor: Actor,
    connection: Connection,
    label: str | None,
    *,
    by_tag: bool,
) -> None:
    """Apply the set's name and version that the role's tag (`by_tag`) or its stack's message names.

    A set counts if it is configured now, or was published. The same holds for its version.
    """
    name, version = read_label(label or "") or ("", 0)
    versions = set(
        db.scalars(select(PermissionSetVersion.version).where(PermissionSetVersion.name == name))
    )
    if (chosen := sets.get(name)) is not None:
        versions.add(chosen.version)
    if versions:
        with recording_a_move(db, actor, connection):
            connection.role_was_made_from(
                name, version if version in versions else None, by_tag=by_tag
            )


@contextmanager
def recording_a_move(db: Session, actor: Actor, connection: Connection) -> Iterator[None]:
    """Record in the audit log if the connection has another permission set afterwards."""
    before = connection.permission_set
    yield
    if connection.permission_set != before:
        details = {
            "from": before,
            "to": connection.permission_set,
            "version": connection.permission_set_version,
        }
        audit.record_about(db, actor, Action.CONNECTION_SET_CHANGED, connection, details)
