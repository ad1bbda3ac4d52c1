"""The console's pages, and the small JSON API behind its buttons."""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    jsonify,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.validate import Length, OneOf, Regexp
from werkzeug.exceptions import HTTPException

from sandbox.console.stacks import AccountRegion, Launch, Stacks, Update
from sandbox.console.template import TemplateRefused
from sandbox.organization import organization
from sandbox.vendor import CUSTOMERS, MEMBERS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOUNT = "/console"
DEFAULT_REGION = "us-east-1"

bp = Blueprint("console", __name__)


def console_app(aws_url: Callable[[], str]) -> "WSGIApplication":
    """Build the console, which answers everything under /console.

    It also works behind a server that has stripped part of the path. It reads the sandbox's address
    at each request, because the console is built before the sandbox has a port.
    """
    app = _flask(aws_url)

    def mounted(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if f"{path}/".startswith(f"{MOUNT}/"):
            script = environ.get("SCRIPT_NAME", "") + MOUNT
            environ = {**environ, "SCRIPT_NAME": script, "PATH_INFO": path.removeprefix(MOUNT)}
        return app(environ, start_response)

    return mounted


def _flask(aws_url: Callable[[], str]) -> Flask:
    app = Flask(__name__)
    app.extensions["stacks"] = Stacks(aws_url)
    app.extensions["places"] = {AccountRegion(account, DEFAULT_REGION) for account in CUSTOMERS}
    app.jinja_env.globals["account_names"] = CUSTOMERS | MEMBERS
    app.jinja_env.globals["organization_units"] = organization.units
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.register_blueprint(bp)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(TemplateRefused, _template_refused)
    app.register_error_handler(ValidationError, _bad_request)
    app.register_error_handler(ClientError, _aws_refused)
    app.register_error_handler(BotoCoreError, _aws_unreachable)
    app.after_request(_secure)
    return app


def stacks() -> Stacks:
    calls: Stacks = current_app.extensions["stacks"]
    return calls


# Input from a browser.

_account = Regexp(r"[0-9]{12}\Z", error="An AWS account id has 12 digits.")
_region = Regexp(r"[a-z]{2}(-[a-z]+)+-[0-9]\Z", error="That is no AWS region.")
_stack_name = Regexp(
    r"[a-zA-Z][-a-zA-Z0-9]{0,127}\Z",
    error=(
        "1 validation error detected: Value '{input}' at 'stackName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
    ),
)


class AccountRegionSchema(Schema):
    account = fields.String(required=True, validate=_account)
    region = fields.String(load_default=DEFAULT_REGION, validate=_region)


class StackSchema(AccountRegionSchema):
    stack = fields.String(required=True, validate=Length(1, 2048))


class ChoiceSchema(AccountRegionSchema):
    parameters = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    capabilities = fields.List(
        fields.String(validate=OneOf(["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"])), required=True
    )


class UpdateSchema(ChoiceSchema):
    stack = fields.String(required=True, validate=Length(1, 2048))
    template_url = fields.String()

    @post_load
    def _update(self, data: dict[str, Any], **_: Any) -> Update:
        return Update(place=AccountRegion(data.pop("account"), data.pop("region")), **data)


class TrustSchema(AccountRegionSchema):
    role_name = fields.String(required=True, validate=Length(1, 64))
    policy = fields.String(required=True)


class LaunchSchema(ChoiceSchema):
    template_url = fields.String(required=True)
    stack_name = fields.String(required=True, validate=_stack_name)
    without_external_id = fields.Boolean(load_default=False)

    @post_load
    def _launch(self, data: dict[str, Any], **_: Any) -> Launch:
        return Launch(place=AccountRegion(data.pop("account"), data.pop("region")), **data)


def _place_and_stack(values: Any) -> tuple[AccountRegion, str]:
    data = StackSchema().load(values)
    return AccountRegion(data["account"], data["region"]), data["stack"]


# Pages.


@bp.get("/")
def index() -> str:
    """Show the accounts that the console knows, with their stacks."""
    places: set[AccountRegion] = current_app.extensions["places"]
    if request.args:
        places.add(AccountRegion(**AccountRegionSchema().load(request.args)))
    ordered = sorted(places, key=lambda place: (place.account, place.region))
    return render_template(
        "index.html",
        default_region=DEFAULT_REGION,
        places=[(place, stacks().all(place)) for place in ordered],
    )


@bp.get("/cloudformation/home")
def home() -> str:
    """Show the page that AWS's links open.

    Their parameters are in the fragment, which only the browser sees.
    """
    return render_template("home.html")


@bp.get("/cloudformation/quick-create")
def quick_create() -> str:
    """Show the quick-create page, with the query of the fragment `#/stacks/create/review?…`."""
    region = request.args.get("region", DEFAULT_REGION)
    _region(region)
    template_url = request.args.get("templateURL", "")
    template = stacks().template(template_url)
    # AWS lets no link fill in a NoEcho parameter, and ignores a parameter that the template lacks.
    values = {}
    for parameter in template.parameters:
        name = parameter.name
        values[name] = parameter.default
        if not parameter.no_echo:
            values[name] = request.args.get(f"param_{name}", parameter.default)
    return render_template(
        "quick_create.html",
        region=region,
        stack_name=request.args.get("stackName", ""),
        template=template,
        template_url=template_url,
        values=values,
    )


@bp.get("/cloudformation/stack")
def stack() -> str:
    """Show one stack's status, outputs and events, and its roles' trust policies."""
    place, name = _place_and_stack(request.args)
    described, events = stacks().one(place, name)
    # While the stack changes, the page reloads itself, which would discard the user's edit
    at_rest = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}
    policies = {}
    if described["StackStatus"] in at_rest:
        policies = stacks().trust_policies(place, described["StackId"])
    return render_template(
        "stack.html", place=place, stack=described, events=events, trust_policies=policies
    )


@bp.get("/cloudformation/update")
def update() -> str:
    """Show the page that changes a stack's parameters or, with `?templateURL=`, its template."""
    query = dict(request.args)
    template_url = query.pop("templateURL", "").strip()
    place, name = _place_and_stack(query)
    described, _ = stacks().one(place, name)
    if template_url:
        template = stacks().template(template_url)
    else:
        template = stacks().template_of(place, name)
    values = {parameter.name: parameter.default for parameter in template.parameters}
    for current in described.get("Parameters", []):
        values[current["ParameterKey"]] = current["ParameterValue"]
    for parameter in template.parameters:
        if parameter.no_echo:
            values[parameter.name] = ""
    return render_template(
        "update.html",
        place=place,
        stack=described,
        template=template,
        template_url=template_url,
        values=values,
    )


# The API. It takes only JSON, which a page of another origin cannot send without a CORS preflight.


@bp.post("/api/stacks")
def create_stack() -> ResponseReturnValue:
    """Create a stack, and return the URL of its page."""
    launch: Launch = LaunchSchema().load(request.get_json())
    stacks().template(launch.template_url)
    stack_id = stacks().create(launch)
    current_app.extensions["places"].add(launch.place)
    return {
        "stack_id": stack_id,
        "url": url_for(
            ".stack", account=launch.place.account, region=launch.place.region, stack=stack_id
        ),
    }, HTTPStatus.CREATED


@bp.put("/api/stacks")
def update_stack() -> ResponseReturnValue:
    """Begin to update a stack, and return the URL of its page."""
    chosen: Update = UpdateSchema().load(request.get_json())
    stacks().update(chosen)
    place = chosen.place
    return {
        "url": url_for(".stack", account=place.account, region=place.region, stack=chosen.stack)
    }, HTTPStatus.ACCEPTED


@bp.put("/api/trust-policy")
def set_trust_policy() -> ResponseReturnValue:
    """Store a role's trust policy."""
    data = TrustSchema().load(request.get_json())
    stacks().set_trust_policy(
        AccountRegion(data["account"], data["region"]), data["role_name"], data["policy"]
    )
    return {}, HTTPStatus.OK


@bp.delete("/api/stacks")
def delete_stack() -> ResponseReturnValue:
    """Begin to delete a stack."""
    place, name = _place_and_stack(request.get_json())
    stacks().delete(place, name)
    return {"url": url_for(".index")}, HTTPStatus.ACCEPTED


# Refusals, in AWS's or the sandbox's own words.


def _refusal(code: str, message: str, status: int) -> ResponseReturnValue:
    if request.path.startswith("/api/"):
        return jsonify(code=code, message=message), status
    return render_template("error.html", code=code, message=message), status


def _http_error(error: HTTPException) -> ResponseReturnValue:
    return _refusal(
        error.name, error.description or "", error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _template_refused(error: TemplateRefused) -> ResponseReturnValue:
    return _refusal("ValidationError", str(error), HTTPStatus.BAD_REQUEST)


def _bad_request(error: ValidationError) -> ResponseReturnValue:
    text = " ".join(_sentences(error.messages))
    return _refusal("ValidationError", text, HTTPStatus.BAD_REQUEST)


def _sentences(messages: list[Any] | dict[str, Any]) -> Iterator[str]:
    """Yield the messages of nested input, each with the name of its field."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            for sentence in _sentences(inner):
                yield f"{name}: {sentence}"
    else:
        yield from messages


def _aws_refused(error: ClientError) -> ResponseReturnValue:
    details = error.response["Error"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return _refusal(details.get("Code", ""), details.get("Message", ""), status)


def _aws_unreachable(error: BotoCoreError) -> ResponseReturnValue:
    return _refusal("SandboxUnavailable", str(error), HTTPStatus.BAD_GATEWAY)


def _secure(response: Response) -> Response:
    """Set the security headers, because a template is untrusted and must not become code."""
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src"
        " 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
