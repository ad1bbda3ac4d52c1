"""The details of audit events: one type per kind of details, and the meaning of each detail.

A detail's name has the same meaning in every event. At run time, details are plain dicts; mypy
checks the code that creates them. docs/api.md and the OpenAPI document are generated from this
module.
"""

from typing import Any, Literal, TypedDict, get_origin, get_type_hints


class NoDetails(TypedDict):
    pass


class TenantDescription(TypedDict):
    name: str
    reference: str | None
    accounts: int | None


class TenantDescriptionChange(TypedDict, total=False):
    name: str
    reference: str | None
    accounts: int | None


class TenantStatusChange(TypedDict):
    was: str
    status: str
    reason: str | None


class TenantDeletion(TypedDict):
    name: str
    reference: str | None
    external_id: str
    was: str
    status: str
    connections_deleted: int
    api_keys_revoked: int


class VoidedRegistrations(TypedDict):
    generation: int


class RotatedIds(TypedDict):
    external_id: str
    next_external_id: str


class RotationStart(RotatedIds):
    reason: str | None
    emergency: bool


class ExternalIdRetirement(RotatedIds, total=False):
    connections_not_seen_to_refuse_it: int
    warning: str


class LinkReference(TypedDict):
    onboarding_link_id: str


class LinkCreation(LinkReference):
    permission_set: str
    expires_at: str


class RoleReference(TypedDict):
    role_arn: str


class StatusChange(TypedDict):
    was: str
    status: str
    version: int


class ConnectionSuspension(StatusChange):
    reason: str | None


class ConnectionDeletion(RoleReference, StatusChange):
    pass


class SetApproval(StatusChange):
    approved: str | None
    permission_set: str
    wanted_permission_set: str | None


class SetRequest(TypedDict):
    permission_set: str
    awaiting_approval: bool


SetMove = TypedDict("SetMove", {"from": str, "to": str, "permission_set_version": int | None})


class RoleDrift(TypedDict, total=False):
    last_proven_at: str
    found_at: str
    exposed_for_seconds_at_most: int


class ProofResult(StatusChange, RoleDrift):
    verdict: str
    checks: dict[str, str]


class StackMessage(RoleReference):
    stack_id: str
    request_type: Literal["Create", "Update", "Delete"]


class RefusalReport(TypedDict):
    status: str


class ExternalIdSwitch(TypedDict):
    external_id: str


class ImportedConnection(RoleReference, ExternalIdSwitch):
    pass


class DiagnosisOutcome(TypedDict):
    steps: dict[str, str]


class CanarySight(TypedDict):
    seen: str
    next: str


class DatabaseRestore(TypedDict):
    reaches: str | None


class Issuance(TypedDict):
    access_key_id: str
    expires_at: str
    duration_seconds: int
    source: Literal["sts", "cache"]
    session_name: str
    reason: str | None


class KeyReference(TypedDict):
    api_key_id: str
    name: str


class KeyCreation(KeyReference):
    scopes: list[str]
    may_give: list[str] | None
    permission_sets: list[str] | None


class KeyReplacement(KeyReference):
    successor_id: str
    grace_seconds: int


class RevokedFamily(TypedDict):
    keys_revoked: int
    links_revoked: int
    registrations: int
    api_key_ids: list[str]
    onboarding_link_ids: list[str]
    webhook_endpoints_disabled: int
    webhook_endpoint_ids: list[str]


class KeyRevocation(KeyReference, RevokedFamily):
    pass


class SetPublication(TypedDict):
    permission_set: str
    permission_set_version: int | None
    access: Literal["read", "write"]


class EndpointReference(TypedDict):
    webhook_endpoint_id: str


class EndpointDescription(EndpointReference):
    host: str
    types: list[str]
    endpoint_status: str


class EndpointChange(EndpointDescription):
    was: str


class EndpointRecovery(EndpointReference):
    events: int


class EndpointDisabling(EndpointReference):
    was: str
    endpoint_status: str
    because: str


class RefusedRequest(TypedDict):
    code: str
    method: str
    route: str
    path: dict[str, str]
    fields: list[str]


class Refusal(RefusedRequest, total=False):
    more_fields: int


class RefusalCount(TypedDict):
    count: int
    codes: dict[str, int]


_MEANINGS = {
    "name": "The name of the tenant or of the API key.",
    "reference": "The vendor's own id of the tenant.",
    "accounts": "How many accounts the tenant declares. `null`: its roles may be in any account.",
    "was": "The status of the tenant, the connection or the webhook endpoint before this event.",
    "reason": "The reason that was given. A key of the tenant reads `null` for the vendor's.",
    "connections_deleted": "How many connections were deleted with the tenant.",
    "api_keys_revoked": "How many API keys were revoked with the tenant.",
    "generation": "The generation that registration tokens must name from now on.",
    "external_id": (
        "The External ID that is replaced, the one that a connection was imported with or has"
        " switched to, or the one that a deleted tenant had."
    ),
    "next_external_id": "The External ID that replaces it.",
    "emergency": "Whether nothing is issued with the old External ID.",
    "connections_not_seen_to_refuse_it": "How many roles were not seen to refuse the External ID.",
    "warning": "A sentence about what was not proven.",
    "onboarding_link_id": "The id of the link.",
    "permission_set": (
        "The permission set. In `connection.approved`: the connection's, before the approval."
    ),
    "expires_at": "When the link or the session expires.",
    "role_arn": "The ARN of the role.",
    "version": "The version of the connection after this event. It only increases.",
    "status": "The status of the tenant or the connection after this event.",
    "approved": "The permission set that was approved.",
    "wanted_permission_set": (
        "The permission set that the role was to move to, before the approval."
    ),
    "awaiting_approval": "Whether this permission set waits for the vendor.",
    "from": "The permission set before the move.",
    "to": "The permission set after the move.",
    "permission_set_version": "The version of the permission set, if it is known.",
    "last_proven_at": "When the role had last passed a proof.",
    "found_at": "When a proof found that the role had changed.",
    "exposed_for_seconds_at_most": "The seconds between these two times.",
    "verdict": "The verdict of the proof.",
    "checks": "The outcome of each check, by its name.",
    "stack_id": "The ARN of the stack.",
    "request_type": "What CloudFormation does with the stack: `Create`, `Update` or `Delete`.",
    "steps": "The outcome of each step, by its name. The vendor's steps together are `vendor`.",
    "seen": "What the canary shows.",
    "next": "What to do, or empty.",
    "reaches": "When the newest event of the copy was made.",
    "access_key_id": "The access key id of the session; never its secret key.",
    "duration_seconds": "The duration that the session was opened for.",
    "source": "`sts`: AWS was called for this request. `cache`: the session was there already.",
    "session_name": "The name of the session, as in the customer's CloudTrail.",
    "api_key_id": "The id of the key.",
    "scopes": "The scopes of the key.",
    "may_give": "The scopes that it may give to keys. `null` without `keys:delegate`.",
    "permission_sets": "The permission sets that the key is for. `null`: all.",
    "successor_id": "The id of the new key.",
    "grace_seconds": "How long the old key still works.",
    "keys_revoked": "How many keys were revoked with this one.",
    "links_revoked": "How many onboarding links were revoked with the key.",
    "registrations": "How many tenants' registration tokens the key could read.",
    "api_key_ids": "The first hundred keys that were revoked with this one.",
    "onboarding_link_ids": "The first hundred links that were revoked with the key.",
    "webhook_endpoints_disabled": "How many endpoints, whose URL or secret it set, were disabled.",
    "webhook_endpoint_ids": "The first hundred endpoints that were disabled with the key.",
    "access": "What the permission set does: `read` or `write`.",
    "webhook_endpoint_id": "The id of the webhook endpoint.",
    "host": "The host in the URL of the webhook endpoint.",
    "types": "The types of events that are sent to the webhook endpoint, or `*`.",
    "endpoint_status": "The status of the webhook endpoint after this event.",
    "events": "How many events are sent again.",
    "because": "Why: `gone` (it answered 410) or `failing` (no success for five days).",
    "code": "The code of the problem in the answer.",
    "method": "The method of the request.",
    "route": "The path of the request, with placeholders.",
    "path": "The ids in the path, by placeholder.",
    "fields": "The fields in `errors`, 20 at most.",
    "more_fields": "How many further fields there were.",
    "count": "How many requests were refused.",
    "codes": "How many requests were refused with each code.",
}
_TEXT, _TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_SCHEMAS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    int | None: {"type": ["integer", "null"]},
    str: _TEXT,
    str | None: {"type": ["string", "null"]},
    list[str]: _TEXTS,
    list[str] | None: _TEXTS | {"type": ["array", "null"]},
    dict[str, str]: {"type": "object", "additionalProperties": _TEXT},
    dict[str, int]: {"type": "object", "additionalProperties": {"type": "integer"}},
}


def schema_of(details: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type of details."""
    properties = {}
    for name, kind in get_type_hints(details).items():
        schema = _TEXT if get_origin(kind) is Literal else _SCHEMAS[kind]
        properties[name] = schema | {"description": _MEANINGS[name]}
    required = sorted(details.__required_keys__, key=[*properties].index)
    return {"type": "object", "properties": properties, "required": required}
