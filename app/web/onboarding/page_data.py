"""The onboarding page and its live part, from their data: a kit, connections, updates of roles.

An update leads to a newer version of a role's permission set, or to another set.
"""

import copy
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from flask import render_template, request

from app.clock import now
from app.connections.kit_names import is_named_by_kit, region_of
from app.connections.listing import ByUrgency, ListPosition
from app.http.current_request import services
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.onboarding.page_links import Visit
from app.permissions.difference_in_words import difference
from app.permissions.permission_sets import PermissionSet
from app.proofs.schedule import SEARCH_DAYS
from app.rotation.rotations import RotationStatus
from app.store.models import Connection, ConnectionStatus, RotationState
from app.web.onboarding import statuses
from app.web.onboarding.look import Look, look_of

WAYS = ("stack", "terraform", "cli", "organization")
_SHOWN = 25  # connections per page
# Between two updates of an open page; True: everything is connected
_STATUS_SECONDS = {False: 3, True: 30}
_UPDATES = "Other permissions are asked for: see below."
_NEW_ID = "A new External ID is to be added: see below."


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


class SetKit(NamedTuple):
    """A permission set's kit for a region, the set's parameters, and the connections to update."""

    kit: Kit
    parameters: Sequence[dict[str, str]]
    connections: list[Connection]


def page(visit: Visit, *, role_arn: str = "", problems: Sequence[str] = ()) -> str:
    """Render the page. `problems`: what is wrong with `role_arn`, which the visitor entered."""
    onboarding, link = services.onboarding, visit.link
    regions, region = onboarding.regions(), request.args.get("region", "")
    first = kit = kit_of(visit, link.region)
    if region in regions and region != link.region:
        kit = kit_of(visit, region)
    way = request.args.get("way")
    return render_template(
        "onboard/page.html",
        link=link,
        tenant=visit.tenant,
        kit=kit,
        permission_set=onboarding.sets[link.permission_set],
        regions=regions,
        registering=list(services.config.aws.registration_topics),
        way=way if way in WAYS else WAYS[0],
        role_arn=role_arn,
        problems=problems,
        vendor_url=services.config.vendor.vendor_url,
        archive_commands=_archive_commands(kit),
        **live_part(visit, first),
    )


def kit_of(visit: Visit, region: str, permission_set: str | None = None) -> Kit:
    """Return the kit for a permission set; None: the link's."""
    name = permission_set or visit.link.permission_set
    return services.onboarding.kit(
        visit.principal, visit.tenant.id, region=region, permission_set=name
    )


def start_of_list() -> ListPosition | None:
    """Return the position where the page's list begins; an invalid one means the beginning."""
    return ListPosition.parse(request.args.get("start", ""))


def live_part(visit: Visit, kit: Kit) -> dict[str, Any]:
    """Return what the page's live part shows. `seen` is its hash, which the browser sends back."""
    summed = services.listing.summary(visit.principal, visit.tenant.id)
    total = sum(summed.values())
    start, listed = _start_and_list(visit, summed)
    shown = [statuses.progress_of(connection) for connection in listed.items]
    rotation = _rotation_under_way(visit)
    counts = _without_withdrawn(summed, rotation)
    any_withdrawn = any(row.is_withdrawn for row in shown)
    connected = set(counts) == {ConnectionStatus.VERIFIED} and not any(row.topic for row in shown)
    updates = _updates_of(visit, listed.items)
    kits = _kits_of(visit, listed.items if rotation or total == 1 else [], kit)
    kit = kits[0].kit if total == 1 else kit
    imported = [each for each in listed.items if each.imported_id]
    tasks = [words for words, rows in ((_UPDATES, updates), (_NEW_ID, imported)) if rows]
    summary = statuses.with_rotation(statuses.headline(counts, shown), tasks, rotation)
    common = {"start": start, "total": total, "vendor": vendor_name(), "search_days": SEARCH_DAYS}
    body = render_template(
        "onboard/progress.html",
        statuses=statuses,
        shown=shown,
        counts=counts,
        rest=listed.rest,
        updates=updates,
        imported=imported,
        accepted=services.rotations.accepted(imported),
        kit=kit,
        kits=kits,
        rotation=rotation,
        **_trust_policy(shown if total == 1 else [], kit),
        way_back=None if any_withdrawn else services.links.way_back(visit, connected=connected),
        **common,
    )
    return common | {
        "connected": connected and not any_withdrawn,
        "withdrawn": bool(rotation and rotation.emergency and kit.next_external_id),
        "summary": summary,
        "body": body,
        "seen": hashlib.sha256(f"{summary}{body}".encode()).hexdigest()[:16],
        "seconds": _STATUS_SECONDS[connected and rotation is None and not tasks],
    }


def _start_and_list(visit: Visit, summed: statuses.Counts) -> tuple[ListPosition | None, ByUrgency]:
    start = start_of_list() if sum(summed.values()) > 1 else None  # one alone shows its steps
    return start, services.listing.list_by_urgency(
        visit.principal, visit.tenant.id, limit=_SHOWN, start=start, among=summed
    )


def _without_withdrawn(counts: statuses.Counts, rotation: RotationStatus | None) -> statuses.Counts:
    """Return the counts with the connections that wait in an emergency as those to be changed."""
    if rotation is None or not rotation.emergency:
        return counts
    waiting = Counter({ConnectionStatus.VERIFIED: rotation.connections.waiting})
    left = Counter(counts) - waiting
    left[ConnectionStatus.INSECURE] += waiting.total()
    return +left


def _rotation_under_way(visit: Visit) -> RotationStatus | None:
    rotation = services.rotations.get(visit.principal, visit.tenant.id)
    if rotation and rotation.state in {RotationState.RETIRED, RotationState.ABANDONED}:
        return None
    return rotation


def _kits_of(visit: Visit, connections: Sequence[Connection], kit: Kit) -> list[SetKit]:
    """Return the kits that update these roles, one for each permission set and region of a stack.

    Returns the link's alone if there are no connections.
    """
    sets = services.onboarding.sets
    groups: defaultdict[tuple[str, str], list[Connection]] = defaultdict(list)
    for connection in connections:
        name = connection.permission_set
        set_name = name if name in sets else kit.permission_set
        groups[set_name, _region_of(visit, connection)].append(connection)
    kits = []
    for (name, region), those in (groups or {(kit.permission_set, kit.region): []}).items():
        is_links = (name, region) == (kit.permission_set, kit.region)
        own = kit if is_links else kit_of(visit, region, name)
        kits.append(SetKit(own, sets[name].parameters, those))
    return kits


def _region_of(visit: Visit, connection: Connection) -> str:
    """Return the region of the connection's stack; the link's region if none is known."""
    region = region_of(connection.stack_id)
    return region if region in services.onboarding.regions() else visit.link.region


def _updates_of(visit: Visit, connections: Sequence[Connection]) -> list[SetUpdate]:
    """Return the updates that these connections of the tenant need."""
    sets, versions = services.onboarding.sets, services.onboarding.versions
    updates: dict[tuple[object, ...], SetUpdate] = {}
    for connection in connections:
        name, version = connection.permission_set, connection.permission_set_version
        target = connection.wanted_permission_set or name
        if target not in sets:
            target = name
        if target == name and not sets.is_outdated(name, version):
            continue
        applied = connection.move is not None and connection.move.version is not None
        key = name, version, target, applied, _region_of(visit, connection)
        if key not in updates:
            before, after = versions.of(name, version), sets[target]
            kit = kit_of(visit, _region_of(visit, connection), target)
            words = list(difference(before, after).words()) if before else []
            words = [sentence.replace("${AWS::Partition}", kit.partition) for sentence in words]
            updates[key] = SetUpdate(after, [], words, kit, target != name, applied)
        updates[key].connections.append(connection)
    return list(updates.values())


def has_own_name(connection: Connection) -> bool:
    """Return whether the kit did not name the role. An older system may still need that role."""
    return not is_named_by_kit(services.config, connection.tenant_id, connection.role_arn)


def _trust_policy(shown: Sequence[statuses.Progress], kit: Kit) -> dict[str, Any]:
    """Return the trust policy that the roles should have, and the command that sets it.

    `shown`: the only role, or empty if there are several. The policy of the only role has what it
    needs beside the kit's: its imported External ID, and the end of the access that the customer
    set. The command is None if there are several roles, or if the kit did not make the role: the
    command could then break an older system's access.
    """
    if not shown:
        return {"trust": kit.trust_policy, "command": None}
    connection, trust = shown[0].connection, copy.deepcopy(kit.update.trust_policy)
    if (until := connection.access_until) and until > now():
        end = {"aws:CurrentTime": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
        trust["Statement"][0]["Condition"]["DateLessThan"] = end
    command = filled(
        "trust-policy.sh.jinja",
        role_name=shown[0].role_name,
        trust_policy=trust,
        region=kit.region,  # selects the partition; an AWS CLI may have no default region
    )
    return {"trust": trust, "command": None if has_own_name(connection) else command}


def vendor_name() -> str:
    return services.config.vendor.vendor_name


def vendor_look() -> Look:
    return look_of(services.config.vendor)[0]


def _archive_commands(kit: Kit) -> str:
    """Return the commands that archive Access Analyzer's findings about this role and the broker.

    They need credentials of the customer's account. A finding names the vendor's account, or the
    broker if Access Analyzer takes the trust policy's condition into account.
    """
    account = kit.broker_principal_arn.split(":")[4]
    root = f"arn:{kit.partition}:iam::{account}:root"
    criteria = {
        "resource": {"eq": ["ROLE"]},
        "principal.AWS": {"eq": [account, root, kit.broker_principal_arn]},
        "isPublic": {"eq": ["false"]},
    }
    return filled("archive-findings.sh.jinja", kit=kit, criteria=criteria)
