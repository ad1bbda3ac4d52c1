"""The updates of roles that the onboarding page asks for, and their instructions.

An update adds or removes an External ID, or leads to a newer version of a role's permission set, or
to another set.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from flask import request

from app.clock import now
from app.connections.kit_names import is_named_by_kit, region_of
from app.http.current_request import services
from app.ids import RoleArn
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.onboarding.kit_trust_policy import trust_policy
from app.onboarding.page_links import Visit
from app.permissions.difference_in_words import difference
from app.permissions.permission_sets import PermissionSet
from app.store.models import Connection

# Maximum of different instructions of a kind on a page, because making them costs more than all the
# rest of it. A tenant may have given each role another name.
_MOST = 3


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


class ExternalIdUpdate(NamedTuple):
    """The instructions that add or remove an External ID, and the connections that need them.

    `parameters`: those of the role's permission set; None: the vendor has removed that set, so
    there is no template for it. `newer`: the template has a newer version of the permission set
    than the role.
    """

    kit: Kit
    trust: dict[str, Any]
    connections: list[Connection]
    parameters: Sequence[dict[str, str]] | None
    newer: bool

    @property
    def trust_command(self) -> str | None:
        """Return the command that sets the trust policy of one of the roles.

        None if the kit did not make the role: the command could break an older system's access.
        """
        [connection, *_] = self.connections
        if not is_named_by_kit(services.config, connection.tenant_id, connection.role_arn):
            return None
        return filled(
            "trust-policy.sh.jinja",
            role_name=RoleArn.parse(connection.role_arn).name,
            trust_policy=self.trust,
            region=self.kit.region,  # selects the partition; an AWS CLI may have no default region
        )


def external_id_updates(
    visit: Visit, connections: Sequence[Connection], kit: Kit
) -> tuple[list[ExternalIdUpdate], list[tuple[dict[str, Any], list[Connection]]]]:
    """Return the updates of these roles, one for the roles that need the same instructions.

    Returns the link's alone if there are no connections. For roles beyond the maximum of
    instructions, the second list has their trust policies.
    """
    sets = services.onboarding.sets
    groups: defaultdict[tuple[object, ...], list[Connection]] = defaultdict(list)
    for connection in connections:
        groups[_instructions_of(visit, connection)].append(connection)
    updates = []
    for those in list(groups.values())[:_MOST]:
        name, version = those[0].set_of_role
        own = _update_of(visit, those[0], name if name in sets else kit.permission_set)
        updates.append(
            ExternalIdUpdate(
                own,
                _trust_policy(those[0], kit),
                those,
                sets[name].parameters if name in sets else None,
                name in sets and sets.is_outdated(name, version),
            )
        )
    if not updates:
        own_parameters = sets[kit.permission_set].parameters
        updates = [ExternalIdUpdate(kit, kit.trust_policy, [], own_parameters, newer=False)]
    others: defaultdict[tuple[object, ...], list[Connection]] = defaultdict(list)
    for those in list(groups.values())[_MOST:]:
        others[those[0].imported_id, those[0].access_until] += those
    return updates, [(_trust_policy(those[0], kit), those) for those in others.values()]


def _instructions_of(visit: Visit, connection: Connection) -> tuple[object, ...]:
    """Return what roles have in common if the same instructions update them."""
    return (
        RoleArn.parse(connection.role_arn).name,
        connection.set_of_role,
        connection.imported_id,
        connection.access_until,
        _region_of(visit, connection),
    )


def _region_of(visit: Visit, connection: Connection) -> str:
    """Return the region of the connection's stack. If none is known, the visitor chooses it."""
    region = region_of(connection.stack_id)
    if region in services.onboarding.regions():
        return region
    return chosen_region() or visit.link.region


def set_updates(
    visit: Visit, connections: Sequence[Connection]
) -> tuple[list[SetUpdate], list[Connection]]:
    """Return the updates that these connections of the tenant need.

    The second list has the connections beyond the maximum of instructions.
    """
    sets, versions = services.onboarding.sets, services.onboarding.versions
    updates: dict[tuple[object, ...], SetUpdate] = {}
    rest = []
    for connection in connections:
        name, version = connection.permission_set, connection.permission_set_version
        target = connection.wanted_permission_set or name
        if target not in sets:
            target = name
        if target == name and not sets.is_outdated(name, version):
            continue
        key = target, name, version, *_instructions_of(visit, connection)
        applied = connection.set_of_role != (name, version)
        if key not in updates and not applied and len(updates) >= _MOST:
            rest.append(connection)
            continue
        if key not in updates:
            present = versions.of(*connection.set_of_role) if applied else None
            before, after = versions.of(name, version), present or sets[target]
            kit = _update_of(visit, connection, target)
            words = list(difference(before, after).words()) if before else []
            words = [sentence.replace("${AWS::Partition}", kit.partition) for sentence in words]
            updates[key] = SetUpdate(after, [], words, kit, after.name != name, applied)
        updates[key].connections.append(connection)
    return list(updates.values()), rest


def _update_of(visit: Visit, connection: Connection, permission_set: str) -> Kit:
    """Return the kit that updates a connection's role to a permission set."""
    return services.onboarding.kit(
        visit.principal,
        visit.tenant.id,
        region=_region_of(visit, connection),
        permission_set=permission_set,
        existing=connection,
    )


def chosen_region() -> str | None:
    """Return the region that the visitor chose for stacks; None: the link's."""
    region = request.args.get("region", "")
    return region if region in services.onboarding.regions() else None


def _trust_policy(connection: Connection, kit: Kit) -> dict[str, Any]:
    """Return the trust policy that the role should have.

    It has what the role needs beside the kit's: its imported External ID, and the end of the access
    that the customer set.
    """
    ids = kit.external_id, kit.next_external_id, connection.imported_id
    trust = trust_policy(services.config.aws.broker, *ids)
    if (until := connection.access_until) and until > now():
        end = {"aws:CurrentTime": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
        trust["Statement"][0]["Condition"]["DateLessThan"] = end
    return trust
