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
from app.rotation.rotations import RotationStatus
from app.store.models import ConnectionStatus
from app.store.models.proof_schedule import SEARCH_DAYS
from app.store.models.states import RotationState
from app.web.onboarding import progress, replacing
from app.web.onboarding.set_updates import updates_of

WAYS = ("stack", "terraform", "cli", "organization")
_SHOWN = 25  # connections per page
_STATUS_SECONDS = {False: 3, True: 30}  # between updates; True: everything is connected


def page(visit: Visit, token: str, *, role_arn: str = "", problems: Sequence[str] = ()) -> str:
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
        kit=kit,
        permission_set=onboarding.sets[link.permission_set],
        regions=regions,
        registering=services.config.aws.registration_region,
        way=way if way in WAYS else WAYS[0],
        role_arn=role_arn,
        problems=problems,
        vendor_url=services.config.vendor.vendor_url,
        archive_commands=_archive_commands(kit),
        **live_part(visit, token, first),
    )


def kit_of(visit: Visit, region: str) -> Kit:
    return services.onboarding.kit(
        visit.principal, visit.tenant.id, region=region, permission_set=visit.link.permission_set
    )


def start_of_list() -> ListPosition | None:
    """Return the position where the page's list begins; an invalid one means the beginning."""
    return ListPosition.parse(request.args.get("start", ""))


def live_part(visit: Visit, token: str, kit: Kit) -> dict[str, Any]:
    """Return what the page's live part shows. `seen` is its hash, which the browser sends back."""
    principal, tenant, listing = visit.principal, visit.tenant, services.listing
    counts = listing.summary(principal, tenant.id)
    start = start_of_list() if sum(counts.values()) > 1 else None  # one alone shows its steps
    listed = listing.list_by_urgency(principal, tenant.id, limit=_SHOWN, start=start, among=counts)
    shown = [progress.progress_of(connection) for connection in listed.items]
    topics = progress.accounts_by_topic(shown)
    connected = set(counts) == {ConnectionStatus.VERIFIED} and not topics
    rotation = services.rotations.get(principal, tenant.id)
    if rotation and rotation.state in {RotationState.RETIRED, RotationState.ABANDONED}:
        rotation = None
    updates = updates_of(services.onboarding, principal, listed.items, visit.link.region)
    summary = progress.headline(counts, shown)
    if updates:
        summary = summary.removesuffix(progress.NOTHING_LEFT)
        summary += " Other permissions are asked for: see below."
    if rotation:
        so_far = summary.removesuffix(progress.NOTHING_LEFT)
        if connected and rotation.emergency:
            so_far = ""
        summary = f"{so_far} {replacing.headline(rotation)}".strip()
    context = {
        "token": token,
        "start": start,
        "rest": listed.rest,
        "vendor": vendor_name(),
        "topics": topics,
        "updates": updates,
        "search_days": SEARCH_DAYS,
    }
    body = _body(kit, counts, shown, rotation, context)
    return context | {
        "connected": connected,
        "tenant": tenant,
        "summary": summary,
        "told": bool(counts),
        "body": body,
        "seen": hashlib.sha256(f"{summary}{body}".encode()).hexdigest()[:16],
        "seconds": _STATUS_SECONDS[connected and rotation is None and not updates],
    }


def _body(
    kit: Kit,
    counts: progress.Counts,
    shown: list[progress.Progress],
    rotation: RotationStatus | None,
    context: dict[str, Any],
) -> str:
    command = None
    if len(shown) == 1:
        command = filled(
            "trust-policy.sh.jinja",
            role_name=shown[0].role_name,
            trust_policy=kit.trust_policy,
            region=kit.region,  # selects the partition, and serves an AWS CLI without a default
        )
    return render_template(
        "onboard/progress.html",
        waiting=progress.WAITING,
        shown=shown,
        counts=progress.counted(counts),
        total=sum(counts.values()),
        made_by=progress.made_by,
        kit=kit,
        rotation=rotation,
        rotation_steps=replacing.steps_of(rotation) if rotation else (),
        command=command,
        **context,
    )


def _archive_commands(kit: Kit) -> str:
    """Return the commands that archive Access Analyzer's findings about this role and the broker.

    They need credentials of the customer's account. A finding names the vendor's account, or the
    broker if Access Analyzer takes the trust policy's condition into account.
    """
    _, partition, _, _, account, _ = kit.broker_principal_arn.split(":", 5)
    principals = [account, f"arn:{partition}:iam::{account}:root", kit.broker_principal_arn]
    criteria = {
        "resource": {"eq": ["ROLE"]},
        "principal.AWS": {"eq": principals},
        "isPublic": {"eq": ["false"]},
    }
    return filled("archive-findings.sh.jinja", kit=kit, criteria=criteria)


def vendor_name() -> str:
    return services.config.vendor.vendor_name
