"""The answer of a diagnosis (the view is in app/api/connections.py)."""

from app.api.kit.schemas import (
    Answer,
    date_time,
    list_of,
    nested,
    nullable_string,
    number,
    one_of,
    policy,
    string,
)


class DiagnosisStepOut(Answer):
    name = string("role", "In the order in which they were asked.")
    outcome = one_of("DiagnosisStepOutcome", "ok", "problem", "unknown", "skipped")
    detail = string("The role accepts this tenant's External ID.")
    fix = nullable_string(None, "What to do, and who can; null: nothing.")


class PermissionGap(Answer):
    action = nullable_string("s3:ListBucket", "null: a whole managed policy.")
    resource = nullable_string("*")
    policy = nullable_string(None, "A managed policy of the set that is not attached.")
    cause = one_of(
        "PermissionGapCause",
        "not_granted",
        "denied",
        "organization",
        "boundary",
        "condition",
        "pattern",
        "not_seen",
    )


class ExtraPermission(Answer):
    policy = string("debugging", "The name of an inline policy, or the ARN of a managed one.")
    action = nullable_string("s3:*", "null: the policy's content is unknown.")
    resource = nullable_string("*")


class RolePermissions(Answer):
    set = string("inventory")
    version = number(None, "Of the set that made the role; null: unknown.", allow_none=True)
    missing = list_of(PermissionGap)
    beyond = list_of(ExtraPermission, "null: its policies were not seen.", allow_none=True)
    # This does not replace `Schema.unknown`: marshmallow removes fields from the class
    unknown = list_of(PermissionGap)  # type: ignore[assignment]


class DiagnosisOut(Answer):
    at = date_time()
    conclusion = string("The role does not let us in.", "The first problem, in words.")
    steps = list_of(DiagnosisStepOut)
    trust_policy = policy(
        {"Statement": []}, "The role's own, as it is now; null: it was not seen.", allow_none=True
    )
    permissions = nested(RolePermissions)
