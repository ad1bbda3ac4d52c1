"""The onboarding page and its live part, from their data: a kit, connections, updates of roles."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from flask import render_template, request

from app.connections.urgency import ByUrgency, ListPosition
from app.http.current_request import services
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.onboarding.page_links import Visit
from app.proofs.schedule import SEARCH_DAYS
from app.rotation.status import RotationStatus
from app.store.models import Connection, ConnectionStatus, RotationState
from app.web.onboarding import statuses
from app.web.onboarding.look import Look, look_of
from app.web.onboarding.role_updates import chosen_region, external_id_updates, set_updates

WAYS = ("stack", "terraform", "cli", "organization")
_SHOWN = 25  # connections per page
# Between two updates of an open page; True: everything is connected
_STATUS_SECONDS = {False: 3, True: 30}
_UPDATES = "Other permissions are asked for: see below."
_NEW_ID = "A new External ID is to be added: see below."


def page(visit: Visit, *, role_arn: str = "", problems: Sequence[str] = ()) -> str:
    """Render the page. `problems`: what is wrong with `role_arn`, which the visitor entered."""
    onboarding, link = services.onboarding, visit.link
    kit, way = kit_of(visit), request.args.get("way")
    return render_template(
        "onboard/page.html",
        link=link,
        tenant=visit.tenant,
        kit=kit,
        permission_set=onboarding.sets[link.permission_set],
        regions=onboarding.regions(),
        registering=list(services.config.aws.registration_topics),
        way=way if way in WAYS else WAYS[0],
        role_arn=role_arn,
        problems=problems,
        vendor_url=services.config.vendor.vendor_url,
        archive_commands=_archive_commands(kit),
        **live_part(visit, kit),
    )


def kit_of(visit: Visit) -> Kit:
    """Return the kit for the link's permission set and the region that the visitor chose."""
    region, name = chosen_region() or visit.link.region, visit.link.permission_set
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
    instructions = _instructions(visit, listed.items, rotation, kit, total)
    only = instructions["only"]
    imported = [each for each in listed.items if each.imported_id]
    tasks = [
        words for words, rows in ((_UPDATES, instructions["updates"]), (_NEW_ID, imported)) if rows
    ]
    summary = statuses.with_rotation(statuses.headline(counts, shown), tasks, rotation)
    common = {"start": start, "total": total, "vendor": vendor_name(), "search_days": SEARCH_DAYS}
    body = render_template(
        "onboard/progress.html",
        statuses=statuses,
        shown=shown,
        counts=counts,
        rest=listed.rest,
        imported=imported,
        accepted=services.rotations.accepted(imported),
        kit=only.kit if only else kit,
        rotation=rotation,
        waiting=_waiting_accounts(visit, rotation) if total > len(shown) else [],
        way_back=None if any_withdrawn else services.links.way_back(visit, connected=connected),
        **instructions,
        **common,
    )
    return common | {
        "connected": connected and not any_withdrawn,
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
    if rotation and rotation.state is RotationState.READY and not rotation.connections.total:
        return None  # no role has accepted the new one
    return rotation


def _instructions(
    visit: Visit,
    listed: Sequence[Connection],
    rotation: RotationStatus | None,
    kit: Kit,
    total: int,
) -> dict[str, Any]:
    """Return the updates that the roles need, and `only`: that of the tenant's only role."""
    updates, more_updates = set_updates(visit, listed)
    to_update = listed if rotation or total == 1 else []
    if rotation and rotation.state is RotationState.OPEN and total > 1:
        to_update = [each for each in listed if each.external_id != rotation.next_external_id]
    id_updates, more_id_updates = external_id_updates(visit, to_update, kit)
    return {
        "updates": updates,
        "more_updates": more_updates,
        "id_updates": id_updates,
        "more_id_updates": more_id_updates,
        "only": id_updates[0] if total == 1 and listed else None,
    }


def _waiting_accounts(visit: Visit, rotation: RotationStatus | None) -> list[str]:
    """Return some of the accounts whose roles are to be updated, which may be on other pages."""
    if rotation is None:
        return []
    return services.rotations.waiting_accounts(visit.principal, visit.tenant.id, limit=_SHOWN)


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
