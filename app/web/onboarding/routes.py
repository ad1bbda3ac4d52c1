"""The hosted onboarding page. A GET changes nothing, because mail scanners open links.

There are no cookies. The token in the path alone authorizes a request, so it must stay secret. The
pages send no referrer, no cache keeps them, and the log has the route instead of the path.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial, wraps
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from flask import (
    Blueprint,
    Response,
    current_app,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Rule

from app import errors
from app.http.current_request import services, whole_body
from app.http.error_statuses import PROBLEMS, code_of, record_refusal
from app.http.response_headers import ONBOARDING_PAGE, adding
from app.identity import digest_of
from app.limits.limits import ATTEMPTS, CHECKS, ROLES_ENTERED, SEARCHES_ENDED
from app.log import logger
from app.onboarding.page_links import Visit
from app.settings.setting_types import Limit
from app.store.models import Trigger
from app.web.onboarding import page_data, review
from app.web.onboarding.look import CACHE_CONTROL, look_of
from app.web.onboarding.role_updates import chosen_region

bp = Blueprint(
    "web", __name__, url_prefix="/onboard", static_folder="static", template_folder="templates"
)
View = Callable[..., Any]


def _visiting(view: View) -> View:
    """Open the link whose token is in the path, and give the view a Visit.

    The token authorizes the request, so the view needs no API key. tests/test_architecture.py lists
    these views.
    """

    @wraps(view)
    def visiting(token: str, **ids: UUID) -> Any:
        try:
            visit = services.links.open(token, g.request_id, g.client_address)
        except errors.RateLimitedError:
            services.tenant_share.hold(UUID(bytes=digest_of(token)[:16]))
            raise
        g.principal = visit.principal
        if visit.link.permission_set not in services.onboarding.sets:  # its file was removed
            return _error(404, "gone")
        return view(visit, **ids)

    vars(visiting)["scopes"] = []
    return visiting


@bp.context_processor
def _add_look() -> dict[str, Any]:
    return {"look": page_data.vendor_look()}


@bp.url_defaults
def _add_token(endpoint: str, values: dict[str, Any]) -> None:
    """Add the link's token, and the region that the visitor chose, to URLs of the link's pages."""
    if current_app.url_map.is_endpoint_expecting(endpoint, "token"):
        values.setdefault("token", (request.view_args or {}).get("token"))
        values.setdefault("region", chosen_region())


bp.add_app_template_filter(partial(json.dumps, indent=2), "pretty")
bp.after_request(adding(ONBOARDING_PAGE))


_NOT_LISTED = "This role is no longer on the list. Go back to your page to see the current list."
_FORM = 16 * 1024  # bytes; the only field is a role's ARN
_MESSAGES = 256  # rendered error pages in memory


@bp.get("/<token>")
@_visiting
def page(visit: Visit) -> str:
    """Show the page."""
    return page_data.page(visit)


@bp.get("/<token>/status")
@_visiting
def status(visit: Visit) -> ResponseReturnValue:
    """Return the page's live part, or 204 if the browser has it already (`?seen=`)."""
    live = page_data.live_part(visit, page_data.kit_of(visit))
    if request.args.get("seen") == live["seen"]:
        return "", 204
    return render_template("onboard/live.html", announce=True, **live)


@bp.get("/<token>/review")
@_visiting
def review_page(visit: Visit) -> str:
    """Show what a security reviewer asks. It prints on two sheets."""
    return render_template("onboard/review.html", link=visit.link, **review.review_of(visit))


@bp.get("/<token>/review.json")
@_visiting
def review_json(visit: Visit) -> Response:
    """Return the same as JSON."""
    body = json.dumps(review.review_of(visit), indent=2, ensure_ascii=False)
    return Response(body, content_type="application/json")


@bp.post("/<token>/connections")
@_visiting
def connect(visit: Visit) -> ResponseReturnValue:
    """Connect a role by its ARN, or prove it again if it is connected."""
    role_arn = _typed(visit)
    # The page shows an error beside the field, which keeps its text.
    try:
        _accept_form(visit, ROLES_ENTERED, ATTEMPTS)
    except errors.RateLimitedError as error:
        problems = [error.detail, f"Try again in {_in_words(error)}."]
        return _with_problems(visit, role_arn, error, problems)
    try:
        services.links.connect(visit, role_arn.strip())
    except errors.ConnectionClosedError:
        raise
    except errors.RateLimitedError as error:
        return _with_problems(visit, role_arn, error, _problems_of(error))
    except (errors.CallerFaultError, errors.CustomerSetupError) as error:
        _record(error.code, error.errors)
        return _with_problems(visit, role_arn, error, _problems_of(error))
    return _back()


def _typed(visit: Visit) -> str:
    """Return what was typed into the form's only field."""
    request.max_content_length = _FORM  # a whole body of `a=1&` would take 80 ms to parse
    try:
        with whole_body():
            return request.form.get("role_arn", "")
    except (HTTPException, errors.AppError):
        _accept_form(visit, ROLES_ENTERED, ATTEMPTS)  # counted before it is recorded
        raise


def _problems_of(error: errors.AppError) -> Sequence[str]:
    """Return in words for the customer why a role was not connected."""
    vendor = page_data.vendor_name()
    if isinstance(error, errors.RateLimitedError):
        return [error.detail, f"If you need more, ask {vendor}."]
    if isinstance(error, errors.SuspendedError):
        return [
            f"This connection is paused. Ask {vendor} to resume it, unless you paused it yourself."
        ]
    return error.errors.get("role_arn", [error.detail])


def _with_problems(
    visit: Visit, role_arn: str, error: errors.AppError, problems: Sequence[str]
) -> Response:
    response = make_response(page_data.page(visit, role_arn=role_arn, problems=problems))
    return _with_status(response, error)


def _with_status(response: Response, error: errors.AppError) -> Response:
    response.status_code = PROBLEMS[error.code][0]
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _in_words(error: errors.AppError) -> str:
    """Return the seconds until a retry in words."""
    seconds = error.retry_after or 0
    if seconds < 90:
        return f"{seconds} second{'s' if seconds != 1 else ''}"
    return f"{math.ceil(seconds / 60)} minutes"


@bp.get("/<token>/connections")
@_visiting
def entered(_visit: Visit) -> ResponseReturnValue:
    """Redirect to the page: a browser sends this GET when it reloads after an invalid form."""
    return _back()


@bp.post("/<token>/connections/<uuid:connection_id>/stop")
@_visiting
def stop_looking(visit: Visit, connection_id: UUID) -> ResponseReturnValue:
    """Stop looking for a role in an account."""
    _accept_form(visit, SEARCHES_ENDED)
    services.links.stop_looking(visit, connection_id)
    return _back()


@bp.post("/<token>/connections/<uuid:connection_id>/verify")
@_visiting
def check_again(visit: Visit, connection_id: UUID) -> ResponseReturnValue:
    """Prove a connection again now."""
    _accept_form(visit, CHECKS, ATTEMPTS)
    services.verification.verify(
        visit.principal, visit.tenant.id, connection_id, trigger=Trigger.REQUESTED
    )
    return _back()


@bp.get("/look/<name>")
def look_file(name: str) -> Response:
    """Return the vendor's logo, icon or style sheet, by the hash of its content."""
    file = look_of(services.config.vendor)[1].get(name)
    if file is None:
        return _error(404, "gone")
    headers = {"Cache-Control": CACHE_CONTROL}
    return Response(file.content, content_type=file.content_type, headers=headers)


@bp.endpoint("web.unknown")
def unknown(rest: str = "") -> Response:  # noqa: ARG001  the route passes it
    """Answer every other path and method with the page for links that do not work."""
    return _error(404, "gone")


class _RestOfPath(BaseConverter):
    """The rest of a path. It may be empty, and may contain slashes and line breaks."""

    regex = "(?s:.*)"
    part_isolating = False
    weight = 300  # after all other routes


def _route_the_rest(state: BlueprintSetupState) -> None:
    """Route every path and method that no view serves. Flask would need a list of methods."""
    state.app.url_map.converters["rest"] = _RestOfPath
    for path in ("/onboard", "/onboard/<rest:rest>"):
        state.app.url_map.add(Rule(path, endpoint="web.unknown"))


bp.record(_route_the_rest)


def _back() -> ResponseReturnValue:
    return redirect(url_for("web.page", start=page_data.start_of_list(), _anchor="status"), 303)


def _accept_form(visit: Visit, *limits: Limit) -> None:
    """Count a form against the tenant's limits, check where it comes from, and note the first one.

    Raises RateLimitedError. Raises ForbiddenError if the browser says that another site sent the
    form. Browsers without Sec-Fetch-Site send `Origin: null` from our pages, which send no
    referrer.
    """
    services.quotas.acquire(visit.principal, visit.tenant.id, *limits)
    own = urlsplit(services.config.service.public_url)
    is_own = request.headers.get("Origin", "null") in {"null", f"{own.scheme}://{own.netloc}"}
    if site := request.headers.get("Sec-Fetch-Site"):
        is_own = site == "same-origin"
    if not is_own:
        raise errors.ForbiddenError(
            "Another site sent this form. Open your link again and send it from there."
        )
    services.links.note_form(visit)


def _record(code: str, fields: errors.FieldErrors) -> None:
    """Record a refused form of a valid link in the audit log, without the token.

    Forms are rate limited first, so a link can't fill the log. A refused GET is not recorded: it
    changes nothing, and pages repeat it every few seconds.
    """
    visitor = g.get("principal")
    if visitor is None or request.method != "POST":
        return
    # The path's id may be another tenant's
    tenant_id = None if code == errors.NotFoundError.code else visitor.tenant_scope
    record_refusal("connection", code, fields, tenant_id=tenant_id)


@bp.errorhandler(errors.AppError)
def _refused(error: errors.AppError) -> Response:
    detail = error.detail
    if not isinstance(error, errors.RateLimitedError):  # not recorded, as in the API
        _record(error.code, error.errors)
        if isinstance(error, errors.TryLaterError):
            logger.warning("request.try_later", code=error.code, exc_info=error)
            detail = f"{page_data.vendor_name()} can't answer right now."
    if isinstance(error, errors.NotFoundError):
        if "principal" in g:
            return _error(404, detail=_NOT_LISTED)
        ended = services.links.leftovers((request.view_args or {}).get("token", ""))
        return _error(404, "gone") if ended is None else _error(410, "ended", ended=ended)
    wait = error.retry_after and _in_words(error)
    return _with_status(_error(PROBLEMS[error.code][0], detail=detail, wait=wait), error)


@bp.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Response:
    """Answer a request that Flask refuses, mostly because the form is too large."""
    _record(code_of(error), {})
    return _error(error.code or 500, detail="This request could not be read.")


@bp.errorhandler(Exception)
def _bug(error: Exception) -> Response:
    logger.error("request.failed", exc_info=error)
    return _error(
        500, detail="Something went wrong on our side. Nothing in your account was changed."
    )


@lru_cache(_MESSAGES)  # anybody can request an error page any number of times
def _rendered(page: str, **words: Any) -> str:
    """Render a page that depends only on these arguments."""
    return render_template(f"onboard/{page}.html", **words)


def _error(status: int, page: str = "error", **words: Any) -> Response:
    look = page_data.vendor_look()
    return make_response(_rendered(page, vendor=look.vendor, look=look, **words), status)
