"""The details of audit events: one type per kind of details, with a description of each field.

A detail's name has the same meaning in every event. At run time, details are plain dicts; mypy
checks the code that creates them. docs/api.md and the OpenAPI document are generated from these
types.
"""

from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

_Name = Annotated[str, "The name of the tenant or of the API key."]
_Reference = Annotated[str | None, "The vendor's own id of the tenant."]
_Accounts = Annotated[
    int | None, "How many accounts the tenant declares. `null`: its roles may be in any account."
]
_Was = Annotated[str, "The status of the tenant or the connection before this event."]
_Status = Annotated[str, "The status of the connection after this event."]
_Reason = Annotated[
    str | None, "The reason that was given. A key of the tenant reads `null` for the vendor's."
]
_ExternalId = Annotated[
    str, "The External ID that is replaced, or the one that a connection switched to."
]
_PermissionSet = Annotated[
    str, "The permission set. In `connection.approved`: the connection's, before the approval."
]
_SetVersion = Annotated[int | None, "The version of the permission set, if it is known."]
_ExpiresAt = Annotated[str, "When the link or the session expires."]


class NoDetails(TypedDict):
    pass


class TenantDescription(TypedDict):
    name: _Name
    reference: _Reference
    accounts: _Accounts


class TenantDescriptionChange(TypedDict, total=False):
    name: _Name
    reference: _Reference
    accounts: _Accounts


class TenantStatusChange(TypedDict):
    was: _Was
    reason: _Reason


class TenantDeletion(TypedDict):
    was: _Was
    connections_deleted: Annotated[int, "How many connections were deleted with the tenant."]
    api_keys_revoked: Annotated[int, "How many API keys were revoked with the tenant."]


class VoidedRegistrations(TypedDict):
    generation: Annotated[int, "The generation that registration tokens must name from now on."]


class RotatedIds(TypedDict):
    external_id: _ExternalId
    next_external_id: Annotated[str, "The External ID that replaces it."]


class RotationStart(RotatedIds):
    reason: _Reason
    emergency: Annotated[bool, "Whether nothing is issued with the old External ID."]


class ExternalIdRetirement(RotatedIds, total=False):
    connections_not_seen_to_refuse_it: Annotated[
        int, "How many roles were not seen to refuse the External ID."
    ]
    warning: Annotated[str, "A sentence about what was not proven."]


class LinkReference(TypedDict):
    onboarding_link_id: Annotated[str, "The id of the link."]


class LinkCreation(LinkReference):
    permission_set: _PermissionSet
    expires_at: _ExpiresAt


class RoleReference(TypedDict):
    role_arn: Annotated[str, "The ARN of the role."]


class StatusChange(TypedDict):
    was: _Was
    version: Annotated[int, "The version of the connection after this event. It only increases."]


class ConnectionSuspension(StatusChange):
    reason: _Reason


class ConnectionDeletion(RoleReference, StatusChange):
    pass


class SetApproval(StatusChange):
    status: _Status
    approved: Annotated[str | None, "The permission set that was approved."]
    permission_set: _PermissionSet
    wanted_permission_set: Annotated[
        str | None, "The permission set that the role was to move to, before the approval."
    ]


class SetRequest(TypedDict):
    permission_set: _PermissionSet
    awaiting_approval: Annotated[bool, "Whether this permission set waits for the vendor."]


SetMove = TypedDict(
    "SetMove",
    {
        "from": Annotated[str, "The permission set before the move."],
        "to": Annotated[str, "The permission set after the move."],
        "permission_set_version": _SetVersion,
    },
)


class RoleDrift(TypedDict, total=False):
    last_proven_at: Annotated[str, "When the role had last passed a proof."]
    found_at: Annotated[str, "When a proof found that the role had changed."]
    exposed_for_seconds_at_most: Annotated[int, "The seconds between these two times."]


class ProofResult(StatusChange, RoleDrift):
    status: _Status
    verdict: Annotated[str, "The verdict of the proof."]
    checks: Annotated[dict[str, str], "The outcome of each check, by its name."]


class StackMessage(RoleReference):
    stack_id: Annotated[str, "The ARN of the stack."]
    request_type: Annotated[
        Literal["Create", "Update", "Delete"],
        "What CloudFormation does with the stack: `Create`, `Update` or `Delete`.",
    ]


class RefusalReport(TypedDict):
    status: _Status


class ExternalIdSwitch(TypedDict):
    external_id: _ExternalId


class DiagnosisOutcome(TypedDict):
    steps: Annotated[
        dict[str, str],
        "The outcome of each step, by its name. The vendor's steps together are `vendor`.",
    ]


class CanarySight(TypedDict):
    seen: Annotated[str, "What the canary shows."]
    next: Annotated[str, "What to do, or empty."]


class DatabaseRestore(TypedDict):
    reaches: Annotated[str | None, "When the newest event of the copy was made."]


class Issuance(TypedDict):
    access_key_id: Annotated[str, "The access key id of the session; never its secret key."]
    expires_at: _ExpiresAt
    duration_seconds: Annotated[int, "The duration that the session was opened for."]
    source: Annotated[
        Literal["sts", "cache"],
        "`sts`: AWS was called for this request. `cache`: the session was there already.",
    ]
    session_name: Annotated[str, "The name of the session, as in the customer's CloudTrail."]
    reason: _Reason


class KeyReference(TypedDict):
    api_key_id: Annotated[str, "The id of the key."]
    name: _Name


class KeyCreation(KeyReference):
    scopes: Annotated[list[str], "The scopes of the key."]
    may_give: Annotated[
        list[str] | None, "The scopes that it may give to keys. `null` without `keys:delegate`."
    ]
    permission_sets: Annotated[
        list[str] | None, "The permission sets that the key is for. `null`: all."
    ]


class KeyReplacement(KeyReference):
    successor_id: Annotated[str, "The id of the new key."]
    grace_seconds: Annotated[int, "How long the old key still works."]


class RevokedFamily(TypedDict):
    keys_revoked: Annotated[int, "How many keys were revoked with this one."]
    links_revoked: Annotated[int, "How many onboarding links were revoked with the key."]
    registrations: Annotated[int, "How many tenants' registration tokens the key could read."]
    api_key_ids: Annotated[list[str], "The first hundred keys that were revoked with this one."]
    onboarding_link_ids: Annotated[
        list[str], "The first hundred links that were revoked with the key."
    ]


class KeyRevocation(KeyReference, RevokedFamily):
    pass


class SetPublication(TypedDict):
    permission_set: _PermissionSet
    permission_set_version: _SetVersion
    access: Annotated[Literal["read", "write"], "What the permission set does: `read` or `write`."]


class RefusedRequest(TypedDict):
    code: Annotated[str, "The code of the problem in the answer."]
    method: Annotated[str, "The method of the request."]
    route: Annotated[str, "The path of the request, with placeholders."]
    path: Annotated[dict[str, str], "The ids in the path, by placeholder."]
    fields: Annotated[list[str], "The fields in `errors`, 20 at most."]


class Refusal(RefusedRequest, total=False):
    more_fields: Annotated[int, "How many further fields there were."]


class RefusalCount(TypedDict):
    count: Annotated[int, "How many requests were refused."]
    codes: Annotated[dict[str, int], "How many requests were refused with each code."]


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
    for name, hint in get_type_hints(details, include_extras=True).items():
        kind, description = get_args(hint)
        schema = _TEXT if get_origin(kind) is Literal else _SCHEMAS[kind]
        properties[name] = schema | {"description": description}
    required = sorted(details.__required_keys__, key=[*properties].index)
    return {"type": "object", "properties": properties, "required": required}
