"""Content of the onboarding page: a kit, and the progress of the tenant's connections."""

import hashlib
from collections.abc import Sequence
from typing import Any

from flask import render_template, request

from app.connections.listing import ListPosition
from app.http.current import services
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.onboarding.page_links import Visit
from app.store.models import ConnectionStatus, RotationState
from app.store.models.states import SEARCH_DAYS
from app.web.onboarding import progress
from app.web.onboarding.set_updates import updates_of

WAYS = ("stack", "terraform", "cli", "organization")
_SHOWN = 25  # connections per page
_STATUS_SECONDS = {False: 3, True: 30}  # between updates; True: everything is connected


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
        registering=services.config.aws.registration_region,
        way=way if way in WAYS else WAYS[0],
        role_arn=role_arn,
        problems=problems,
        vendor_url=services.config.vendor.vendor_url,
        archive_commands=filled("archive-findings.sh.jinja", kit=kit),
        **live_part(visit, first),
    )


def kit_of(visit: Visit, region: str) -> Kit:
    return services.onboarding.kit(
        visit.principal, visit.tenant.id, region=region, permission_set=visit.link.permission_set
    )


def start_of_list() -> ListPosition | None:
    """Return the position where the page's list begins; an invalid one means the beginning."""
    return ListPosition.parse(request.args.get("start", ""))


def live_part(visit: Visit, kit: Kit) -> dict[str, Any]:
    """Return what the page's live part shows. `seen` is its hash, which the browser sends back."""
    principal, tenant_id, listing = visit.principal, visit.tenant.id, services.listing
    counts = listing.summary(principal, tenant_id)
    total = sum(counts.values())
    start = start_of_list() if total > 1 else None  # one alone shows its steps
    listed = listing.list_by_urgency(principal, tenant_id, limit=_SHOWN, start=start, among=counts)
    shown = [progress.progress_of(connection) for connection in listed.items]
    connected = set(counts) == {ConnectionStatus.VERIFIED} and not any(row.topic for row in shown)
    rotation = services.rotations.get(principal, tenant_id)
    if rotation and rotation.state in {RotationState.RETIRED, RotationState.ABANDONED}:
        rotation = None
    updates = updates_of(services.onboarding, principal, listed.items, visit.link.region)
    summary = progress.headline(counts, shown)
    if updates or rotation:
        summary = summary.removesuffix(progress.NOTHING_LEFT)
    if updates:
        summary += " Other permissions are asked for: see below."
    if rotation:
        so_far = "" if connected and rotation.emergency else summary
        summary = f"{so_far} {progress.rotation_headline(rotation)}".strip()
    common = {"start": start, "total": total, "vendor": vendor_name(), "search_days": SEARCH_DAYS}
    body = render_template(
        "onboard/progress.html",
        progress=progress,
        shown=shown,
        counts=counts,
        rest=listed.rest,
        updates=updates,
        kit=kit,
        rotation=rotation,
        command=_trust_policy_command(shown, kit),
        **common,
    )
    return common | {
        "connected": connected,
        "summary": summary,
        "body": body,
        "seen": hashlib.sha256(f"{summary}{body}".encode()).hexdigest()[:16],
        "seconds": _STATUS_SECONDS[connected and rotation is None and not updates],
    }


def _trust_policy_command(shown: Sequence[progress.Progress], kit: Kit) -> str | None:
    """Return the command that sets the trust policy of the only role; None if there are more."""
    if len(shown) != 1:
        return None
    return filled(
        "trust-policy.sh.jinja",
        role_name=shown[0].role_name,
        trust_policy=kit.trust_policy,
        region=kit.region,  # selects the partition, and serves an AWS CLI without a default
    )


def vendor_name() -> str:
    return services.config.vendor.vendor_name
