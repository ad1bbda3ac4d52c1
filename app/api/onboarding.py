"""The onboarding kit and its templates, and links to the onboarding page (app/web/onboarding)."""

from functools import partial
from typing import Any
from uuid import UUID

from flask import Response

from app.api.kit.blueprint import (
    PUBLIC,
    Blueprint,
    JsonObject,
    changing,
    paged,
    principal,
    services,
)
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    ACCOUNT,
    EXTERNAL_ID,
    NEXT_EXTERNAL_ID,
    ROLE,
    Answer,
    Strict,
    choice,
    date_time,
    doc,
    flag,
    line,
    list_of,
    matching,
    nested,
    nullable_date_time,
    nullable_string,
    number,
    policy,
    seconds,
    status,
    string,
    uuid,
)
from app.ids import Broker
from app.onboarding import kit as onboarding, kit_trust_policy
from app.onboarding.page_links import CONNECTIONS_SHOWN, LINK_DAYS, LINK_DAYS_MAX, LINK_SECONDS_MIN
from app.settings.return_urls import LENGTH_MAX
from app.settings.valid_values import DAY, REGION
from app.store.models import ConnectionStatus, LinkStatus

_TEMPLATE = "https://s3.eu-west-1.amazonaws.com/example-deputy-templates/templates/customer-role/inventory/0a1b.yaml"
_HOME = "https://eu-west-1.console.aws.amazon.com/cloudformation/home?region=eu-west-1"
_CONSOLE = f"{_HOME}#/stacks/create/review?"
_BROKER = "arn:aws:iam::111122223333:role/DeputyBroker"


class TemplateQuery(Strict):
    permission_set = line(64, "inventory")


class KitQuery(TemplateQuery):
    region = matching(REGION, "eu-west-1")


class StackUpdateOut(Answer):
    console_url = string(f"{_HOME}#/stacks?filteringText=deputy-7a2b6c18")
    aws_cli = string("aws cloudformation update-stack ...")


class KitUpdateOut(Answer):
    stack = nested(StackUpdateOut)
    stack_set = nested(StackUpdateOut, "The stack of a whole organisation.")
    terraform = string('resource "aws_iam_role" "deputy" { ... }')
    aws_cli = string("#!/bin/sh\n...")
    trust_policy = policy(
        kit_trust_policy.trust_policy(Broker.parse(_BROKER), EXTERNAL_ID, NEXT_EXTERNAL_ID),
        "Of a role that is there already. It also accepts the role's imported External ID.",
    )


class OnboardingKitOut(Answer):
    external_id = string(EXTERNAL_ID)
    next_external_id = nullable_string(
        NEXT_EXTERNAL_ID, "During a rotation the one that roles accept as well."
    )
    broker_principal_arn = string(_BROKER)
    role_name = string("deputy-7a2b6c18")
    stack_name = string("deputy-7a2b6c18")
    region = string("eu-west-1")
    partition = string("aws")
    permission_set = string("inventory")
    permission_set_version = number(1)
    template_url = string(_TEMPLATE)
    template_version = string("0a1b2c3d4e5f6071")
    launch_stack_url = string(
        f"{_CONSOLE}templateURL=...",
        "The launch link: AWS's console, where only the permission set's parameters are to be"
        " filled in.",
    )
    organization_launch_url = string(
        f"{_CONSOLE}templateURL=...",
        "The launch link for a whole AWS organisation. Open it in the management account or a"
        " delegated administrator's, and fill in the organizational units and the permission set's"
        " parameters there.",
    )
    registers_itself = flag(
        "Whether a stack launched by these links tells Deputy the ARN of its role."
    )
    trust_policy = policy(kit_trust_policy.trust_policy(Broker.parse(_BROKER), EXTERNAL_ID))
    terraform = string('resource "aws_iam_role" "deputy" { ... }')
    aws_cli = string("#!/bin/sh\n...")
    update = nested(
        KitUpdateOut, "How a role that is there already is brought to what this kit asks for."
    )


bp = Blueprint("onboarding", "What a customer needs to create the role.", noun="onboarding")


@bp.operation(
    "GET",
    "/v1/tenants/<uuid:tenant_id>/onboarding",
    "connections:read tenants:create",
    OnboardingKitOut,
    takes=KitQuery,
)
def get_onboarding_kit(query: JsonObject, tenant_id: UUID) -> onboarding.Kit:
    """Read the onboarding kit: link, template, trust policy, Terraform and AWS CLI."""
    return services.onboarding.kit(principal(), tenant_id, **query)


_answering_template = partial(
    bp.operation,
    "GET",
    scopes=PUBLIC,
    answer={"type": "string"},
    takes=TemplateQuery,
    content_type="text/yaml",
    description="The CloudFormation template",
)


@_answering_template("/v1/templates/customer-role.yaml")
def get_role_template(query: JsonObject) -> Response:
    """Read the CloudFormation template before launching it."""
    return _yaml(services.onboarding.rendered(**query).role)


@_answering_template("/v1/templates/customer-org.yaml")
def get_organization_template(query: JsonObject) -> Response:
    """Read the template that creates the role in an organisation's accounts."""
    return _yaml(services.onboarding.rendered(**query).organization)


def _yaml(template: Any) -> Response:
    headers = {"X-Template-Version": template.version}
    return Response(template.body, content_type="text/yaml; charset=utf-8", headers=headers)


_EXPIRES_IN = f"Seconds until it stops working. Default {LINK_DAYS} days."


_RETURN_URL = "https://app.example.com/aws/connected"


class NewOnboardingLink(Strict):
    permission_set = line(64, "inventory")
    region = matching(REGION, "eu-west-1", "The region that the page offers first.")
    return_url = line(
        LENGTH_MAX,
        _RETURN_URL,
        "Where the page's button leads once the role is connected: below an entry of"
        " `DEPUTY_RETURN_URLS`.",
    )
    expires_in = seconds(LINK_DAYS * DAY, LINK_SECONDS_MIN, LINK_DAYS_MAX * DAY, _EXPIRES_IN)


class OnboardingLinkOut(Answer):
    id = uuid()
    permission_set = string("inventory")
    region = string("eu-west-1")
    created_at = date_time()
    expires_at = date_time()
    revoked_at = nullable_date_time()
    opened_at = nullable_date_time("When a form of the page was first sent.")
    return_url = nullable_string(_RETURN_URL)


class OnboardingLinkConnectionOut(Answer):
    id = uuid()
    role_arn = string(ROLE)
    account_id = string(ACCOUNT)
    status = status(ConnectionStatus, "verified")


class OnboardingLinkDetails(OnboardingLinkOut):
    status = choice(
        LinkStatus,
        metadata=doc(
            "connected",
            "`connected`: a role that was connected through it is verified, even if the link has"
            " expired since.",
        ),
    )
    connections = list_of(
        OnboardingLinkConnectionOut,
        f"Added through its page or by stacks that were launched from it: the newest"
        f" {CONNECTIONS_SHOWN}.",
    )


_SHOWN_ONCE = "For the customer. Shown only in this answer; Deputy keeps its hash."


class CreatedOnboardingLink(Answer):
    id = uuid()
    url = string("https://deputy.example.com/onboard/<43 characters>", _SHOWN_ONCE)
    expires_at = date_time()


_ABOUT = "URLs of the onboarding page, for customers' administrators."
links = Blueprint("onboarding_links", _ABOUT, noun="onboarding_link")

_ALL = "/v1/tenants/<uuid:tenant_id>/onboarding-links"
_LINKS = "connections:write tenants:create"


@links.operation("POST", _ALL, _LINKS, CreatedOnboardingLink, takes=NewOnboardingLink, status=201)
def create_onboarding_link(body: JsonObject, tenant_id: UUID) -> JsonObject:
    """Create an onboarding link; only this answer shows its URL.

    The URL alone opens the tenant's onboarding page and connects roles to the tenant: give it only
    to the customer's administrator. It stops working when it expires or is revoked, and while the
    tenant is suspended.
    """
    link, url = services.links.create(changing(), tenant_id, **body)
    return {"id": link.id, "url": url, "expires_at": link.expires_at}


@links.operation("GET", _ALL, _LINKS, page_of(OnboardingLinkOut), takes=PageQuery)
def list_onboarding_links(query: JsonObject, tenant_id: UUID) -> JsonObject:
    """List a tenant's onboarding links, newest first, without their URLs."""
    return paged(query, services.links.list, principal(), tenant_id)


@links.operation("GET", f"{_ALL}/<uuid:link_id>", _LINKS, OnboardingLinkDetails)
def get_onboarding_link(tenant_id: UUID, link_id: UUID) -> Any:
    """Read an onboarding link: its status, and what was connected through it."""
    return services.links.get(principal(), tenant_id, link_id)


@links.operation("DELETE", f"{_ALL}/<uuid:link_id>", _LINKS, status=204)
def revoke_onboarding_link(tenant_id: UUID, link_id: UUID) -> None:
    """Revoke an onboarding link: from this answer on, its page is gone."""
    services.links.revoke(principal(), tenant_id, link_id)
