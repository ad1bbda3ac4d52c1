"""The updates that roles need for the permissions that the vendor asks for.

An update leads to a newer version of a role's permission set, or to another set.
"""

from collections.abc import Sequence
from typing import NamedTuple

from app.identity import Principal
from app.onboarding.kit import Kit, Onboarding
from app.permissions.difference import difference
from app.permissions.permission_sets import PermissionSet
from app.store.models import Connection


class SetUpdate(NamedTuple):
    """One update, and the connections that need it.

    `words`: the changes, as sentences. `kit`: the instructions. `moves`: the update leads to
    another set. `applied`: the roles already have the new set, and only the vendor's approval is
    missing.
    """

    after: PermissionSet
    connections: list[Connection]
    words: list[str]
    kit: Kit
    moves: bool
    applied: bool

    @property
    def awaits_approval(self) -> bool:
        return any(self.after.name in each.sets_to_approve for each in self.connections)


def updates_of(
    onboarding: Onboarding, principal: Principal, connections: Sequence[Connection], region: str
) -> list[SetUpdate]:
    """Return the updates for these connections of one tenant, which the principal can see."""
    sets = onboarding.sets
    updates: dict[tuple[str, int | None, str, bool], SetUpdate] = {}
    for connection in connections:
        name, version = connection.permission_set, connection.permission_set_version
        target = connection.wanted_permission_set or name
        if target not in sets:
            target = name
        if target == name and not sets.is_outdated(name, version):
            continue
        applied = connection.move is not None and connection.move.version is not None
        key = name, version, target, applied
        if key not in updates:
            before, after = onboarding.versions.of(name, version), sets[target]
            words = list(difference(before, after).words()) if before else []
            kit = onboarding.kit(
                principal, connection.tenant_id, region=region, permission_set=target
            )
            updates[key] = SetUpdate(after, [], words, kit, target != name, applied)
        updates[key].connections.append(connection)
    return list(updates.values())
