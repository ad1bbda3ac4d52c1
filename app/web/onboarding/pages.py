"""The hosted onboarding page. A GET changes nothing, because mail scanners open links.

There are no cookies. The token in the path alone gives access, so it must stay secret. The pages
send no referrer, no cache keeps them, and the log has the route instead of the path.
"""

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from flask import Blueprint, Response, g, make_response, redirect, render_template, request, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Rule

from app import errors
from app.connections.listing import ListPosition
from app.http.bodies import whole_body
from app.http.current import services
from app.http.refusals import PROBLEMS, code_of, record_refusal
from app.log import logger
from app.onboarding.kit import Kit
from app.onboarding.kit_scripts import filled
from app.onboarding.page_links import Visit
from app.rotation.rotations import RotationStatus
from app.store.models import ConnectionStatus, Trigger
from app.store.models.proof_schedule import SEARCH_DAYS
from app.web.onboarding import progress, replacing
from app.web.onboarding.progress import Counts, Progress
from app.web.onboarding.set_updates import updates_of

bp = Blueprint(
    "web", __name__, url_prefix="/onboard", static_folder="static", template_folder="templates"
)
View = TypeVar("View", bound=Callable[..., Any])


def _without_key(view: View) -> View:
    """Mark a view that needs no API key: the token in its path is the authority.

    tests/test_architecture.py lists these views.
    """
    view.__dict__["facts"] = {"public": True}
    return view


@bp.app_template_filter("pretty")
def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2)


@bp.context_processor
def _constants() -> dict[str, int]:
    return {"search_days": SEARCH_DAYS}


HEADERS = {
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src"
        " 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
POLLED = {"web.static", "web.status"}  # requested often, so only failures are logged
WAYS = ("stack", "terraform", "cli", "organization")
_NOT_LISTED = "This role is no longer on the list. Go back to your page to see the current list."
_FORM = 16 * 1024  # bytes; the only field is a role's ARN
_SHOWN = 25  # connections per page
_MESSAGES = 256  # rendered error pages in memory
_STATUS_SECONDS = {False: 3, True: 30}  # update interval, by whether everything is connected


@bp.route("/<token>", methods=["GET"])
@_without_key
def page(token: str) -> str:
    """Show the page."""
    return _page(_visit(token), token)


@bp.route("/<token>/status", methods=["GET"])
@_without_key
def status(token: str) -> ResponseReturnValue:
    """Return the part of the page that updates itself; 204 if the browser has it (`?seen=`)."""
    visit = _visit(token)
    live = _live(visit, token, _kit(visit, visit.link.region))
    if request.args.get("seen") == live["seen"]:
        return "", 204
    return render_template("onboard/live.html", announce=True, **live)


@bp.route("/<token>/connections", methods=["POST"])
@_without_key
def connect(token: str) -> ResponseReturnValue:
    """Connect a role by its ARN, or prove it again if it is connected."""
    visit = _visit(token)
    services.quotas.acquire_role(visit.principal, visit.tenant.id)
    _ensure_own_form()
    request.max_content_length = _FORM  # a whole body of `a=1&` would take 80 ms to parse
    with whole_body():
        given = request.form.get("role_arn", "")
    try:
        services.links.connect(visit, given.strip())
    except (errors.CallerFaultError, errors.CustomerSetupError) as error:
        # The page shows it beside the field, which keeps its text.
        _record(error.code, error)
        said = error.errors.get("role_arn", [error.detail])
        return _page(visit, token, role_arn=given, problems=said), PROBLEMS[error.code][0]
    return _back(token)


@bp.route("/<token>/connections", methods=["GET"])
@_without_key
def entered(token: str) -> ResponseReturnValue:
    """Redirect to the page, for a browser that reloads after an invalid form."""
    _visit(token)
    return _back(token)


@bp.route("/<token>/connections/<uuid:connection_id>/stop", methods=["POST"])
@_without_key
def stop_looking(token: str, connection_id: UUID) -> ResponseReturnValue:
    """Stop looking for a role in an account."""
    visit = _visit(token)
    services.quotas.acquire_search_end(visit.principal)
    _ensure_own_form()
    services.links.stop_looking(visit, connection_id)
    return _back(token, start=_start())


@bp.route("/<token>/connections/<uuid:connection_id>/verify", methods=["POST"])
@_without_key
def check_again(token: str, connection_id: UUID) -> ResponseReturnValue:
    """Prove a connection again now."""
    visit = _visit(token)
    services.quotas.acquire_check(visit.principal, visit.tenant.id)
    _ensure_own_form()
    services.verification.verify(
        visit.principal, visit.tenant.id, connection_id, trigger=Trigger.REQUESTED
    )
    return _back(token, start=_start())


@bp.endpoint("web.unknown")
@_without_key
def unknown(rest: str = "") -> Response:  # noqa: ARG001  the route passes it
    """Answer every other path and method with the page for a bad link."""
    return _error(404, "gone")


class _RestOfPath(BaseConverter):
    """The rest of a path. It may be empty, and hold slashes and line breaks."""

    regex = "(?s:.*)"
    part_isolating = False
    weight = 300  # after all other routes


def _route_the_rest(state: BlueprintSetupState) -> None:
    """Route what no view of this blueprint serves. Flask's own routes have a list of methods."""
    state.app.url_map.converters["rest"] = _RestOfPath
    for path in ("/onboard", "/onboard/<rest:rest>"):
        state.app.url_map.add(Rule(path, endpoint="web.unknown"))


bp.record(_route_the_rest)


def _visit(token: str) -> Visit:
    try:
        visit = services.links.open(token, g.request_id, g.client_address)
    except errors.RateLimitedError:
        services.tenant_share.hold(UUID(bytes=hashlib.sha256(token.encode()).digest()[:16]))
        raise
    g.principal = visit.principal
    return visit


def _back(token: str, start: ListPosition | None = None) -> ResponseReturnValue:
    return redirect(url_for("web.page", token=token, start=start, _anchor="status"), 303)


def _start() -> ListPosition | None:
    """Return the position in the list where the page begins; an invalid one means the beginning."""
    return ListPosition.parse(request.args.get("start", ""))


def _ensure_own_form() -> None:
    """Raise ForbiddenError for a form that another site sent, according to the browser.

    Browsers without Sec-Fetch-Site send `Origin: null` from our pages, which send no referrer.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin", "null")
    own = urlsplit(services.config.service.public_url)
    ours = site == "same-origin" if site else origin in {"null", f"{own.scheme}://{own.netloc}"}
    if not ours:
        raise errors.ForbiddenError(
            "Another site sent this form. Open your link again and send it from there."
        )


def _page(
    visit: Visit, token: str, *, role_arn: str = "", problems: tuple[str, ...] | Any = ()
) -> str:
    onboarding, link = services.onboarding, visit.link
    regions, asked = onboarding.regions(), request.args.get("region", "")
    first = _kit(visit, link.region)
    kit = _kit(visit, asked) if asked in regions and asked != link.region else first
    wanted = onboarding.sets[link.permission_set]
    way = request.args.get("way", "")
    return render_template(
        "onboard/page.html",
        link=link,
        kit=kit,
        permission_set=wanted,
        policy=wanted.policy(kit.partition),
        managed=wanted.managed_policy_arns(kit.partition),
        regions=regions,
        registering=services.config.aws.registration_region,
        way=way if way in WAYS else WAYS[0],
        role_arn=role_arn,
        problems=problems,
        vendor_url=services.config.vendor.vendor_url,
        archive_commands=progress.archive_commands(kit),
        **_live(visit, token, first),
    )


def _kit(visit: Visit, region: str) -> Kit:
    chosen = visit.link.permission_set
    return services.onboarding.kit(
        visit.principal, visit.tenant.id, region=region, permission_set=chosen
    )


def _live(visit: Visit, token: str, kit: Kit) -> dict[str, Any]:
    """Return the part that updates itself. The browser sends `seen` back to name its state."""
    listing = services.listing
    counts = listing.summary(visit.principal, visit.tenant.id)
    start = _start() if sum(counts.values()) > 1 else None  # a single one is shown step by step
    listed = listing.list_by_urgency(
        visit.principal, visit.tenant.id, limit=_SHOWN, start=start, among=counts
    )
    shown = [progress.progress_of(connection) for connection in listed.items]
    rotation = services.rotations.get(visit.principal, visit.tenant.id)
    if rotation is not None and rotation.state not in replacing.GOES_ON:
        rotation = None
    connections = [one.connection for one in shown]
    updates = updates_of(services.onboarding, visit.principal, connections, visit.link.region)
    summary = progress.headline(counts, shown)
    if updates:
        summary = (
            f"{summary.removesuffix(progress.NOTHING_LEFT)} Other permissions are asked for: see"
            " below.".strip()
        )
    connected = set(counts) == {ConnectionStatus.VERIFIED} and not any(one.topic for one in shown)
    if rotation is not None:
        so_far = (
            "" if connected and rotation.emergency else summary.removesuffix(progress.NOTHING_LEFT)
        )
        summary = f"{so_far} {replacing.headline(rotation)}".strip()
    places = {"token": token, "start": start, "rest": listed.rest}
    body = _body(kit, counts, shown, rotation, updates=updates, **places)
    return {
        "token": token,
        "start": start,
        "vendor": _vendor(),
        "tenant": visit.tenant,
        "summary": summary,
        "connected": connected,
        "told": bool(counts),
        "body": body,
        "seen": hashlib.sha256(f"{summary}{body}".encode()).hexdigest()[:16],
        "seconds": _STATUS_SECONDS[connected and rotation is None and not updates],
    }


def _body(
    kit: Kit, counts: Counts, shown: list[Progress], rotation: RotationStatus | None, **places: Any
) -> str:
    return render_template(
        "onboard/progress.html",
        vendor=_vendor(),
        waiting=progress.WAITING,
        shown=shown,
        counts=progress.counted(counts),
        total=sum(counts.values()),
        topics=progress.accounts_by_topic(shown),
        made_by=progress.made_by,
        searching=any(one.connection.due_at for one in shown if not one.settled),
        unclear=next((one.unclear for one in shown if one.unclear), None),
        kit=kit,
        rotation=rotation,
        rotation_steps=replacing.steps_of(rotation) if rotation else (),
        command=_trust_command(kit, shown[0].role_name) if len(shown) == 1 else None,
        **places,
    )


def _trust_command(kit: Kit, role_name: str) -> str:
    """Return the command that sets the trust policy.

    It names a region, which selects the partition and serves an AWS CLI without a default region.
    """
    return filled(
        "trust-policy.sh.jinja",
        role_name=role_name,
        trust_policy=kit.trust_policy,
        region=kit.region,
    )


def _vendor() -> str:
    return services.config.vendor.vendor_name


@bp.after_request
def _set_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        if name != "Cache-Control" or request.endpoint != "web.static":  # static files hold no data
            response.headers[name] = value
    return response


def _record(code: str, error: errors.AppError | None = None) -> None:
    """Record a refused form of a valid link in the audit log, without the token.

    Forms are rate limited first, so a link can't fill the log. A refused GET is left out: it
    changes nothing, and pages repeat it every few seconds.
    """
    visitor = g.get("principal")
    if visitor is None or request.method != "POST":
        return
    ids = {
        name: value for name, value in (request.view_args or {}).items() if name == "connection_id"
    }
    # The id may be another tenant's
    tenant_id = None if code == errors.NotFoundError.code else visitor.tenant_scope
    fields = error.errors if error else {}
    record_refusal("connection", code, ids, fields, tenant_id=tenant_id)


@bp.errorhandler(errors.AppError)
def _refused(error: errors.AppError) -> Response:
    detail = error.detail
    if not isinstance(error, errors.RateLimitedError):  # those are not recorded, as in the API
        _record(error.code, error)
        if isinstance(error, errors.TryLaterError):
            logger.warning("request.try_later", code=error.code, exc_info=error)
            detail = f"{_vendor()} can't answer right now."
    if isinstance(error, errors.NotFoundError):
        if g.get("principal") is not None:
            return _error(404, detail=_NOT_LISTED)
        ended = services.links.leftovers((request.view_args or {}).get("token", ""))
        return _error(404, "gone") if ended is None else _error(410, "ended", ended=ended)
    return _error(PROBLEMS[error.code][0], detail=detail, retry_after=error.retry_after)


@bp.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Response:
    """Answer a request that Flask refuses, mostly because the form is too large."""
    _record(code_of(error))
    return _error(error.code or 500, detail="This request could not be read.")


@bp.errorhandler(Exception)
def _bug(error: Exception) -> Response:
    logger.error("request.failed", exc_info=error)
    return _error(
        500, detail="Something went wrong on our side. Nothing in your account was changed."
    )


@lru_cache(_MESSAGES)  # anybody can request such a page at any rate
def _rendered(page: str, **words: Any) -> str:
    """Render a page that depends only on these arguments."""
    return render_template(f"onboard/{page}.html", **words)


def _error(
    status: int, page: str = "error", *, retry_after: int | None = None, **words: Any
) -> Response:
    body = _rendered(page, vendor=_vendor(), retry_after=retry_after, **words)
    return make_response(
        body, status, {} if retry_after is None else {"Retry-After": str(retry_after)}
    )
