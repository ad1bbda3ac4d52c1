"""The roles that are to be updated.

An update leads to a newer version of their permission set, or to another set that was asked for.
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

    `words`: the changes, as sentences. `kit`: the instructions.
    """

    after: PermissionSet
    connections: list[Connection]
    words: list[str]
    kit: Kit

    @property
    def moves(self) -> bool:
        """Return whether it leads to another set."""
        return self.after.name != self.connections[0].permission_set

    @property
    def made(self) -> bool:
        """Return whether the roles already have it, and only the vendor's approval is missing."""
        return all(_has_wanted_set(connection) for connection in self.connections)

    @property
    def awaits_approval(self) -> bool:
        return any(self.after.name in one.sets_to_approve for one in self.connections)


def _has_wanted_set(connection: Connection) -> bool:
    """Return whether the role already has the set that the connection is to move to."""
    return connection.move is not None and connection.move.version is not None


def updates_of(
    onboarding: Onboarding, caller: Principal, connections: Sequence[Connection], region: str
) -> list[SetUpdate]:
    """Return the updates for these connections of one tenant, which the caller can see."""
    sets = onboarding.sets
    found: dict[tuple[str, int | None, str, bool], list[Connection]] = {}
    for one in connections:
        name, version, wanted = (
            one.permission_set,
            one.permission_set_version,
            one.wanted_permission_set,
        )
        if wanted in sets or sets.is_outdated(name, version):
            found.setdefault((name, version, wanted or name, _has_wanted_set(one)), []).append(one)
    updates = []
    for (name, version, wanted, _), of_it in found.items():
        before, after = onboarding.versions.of(name, version), sets[wanted]
        words = list(difference(before, after).words()) if before else []
        kit = onboarding.kit(caller, of_it[0].tenant_id, region=region, permission_set=wanted)
        updates.append(SetUpdate(after, of_it, words, kit))
    return updates
