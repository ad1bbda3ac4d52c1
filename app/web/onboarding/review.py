"""Answers to a customer's security reviewer, for a page and for JSON.

Neither has the link's token or the registration token, so both can be forwarded as files.
"""

import math
from collections.abc import Sequence
from typing import Any

from app.clock import now
from app.config import Config
from app.http.current_request import services
from app.onboarding.kit import Kit
from app.onboarding.page_links import Visit
from app.permissions.permission_sets import READS_ITSELF, PermissionSet
from app.permissions.set_rules import texts
from app.settings.valid_values import DAY, SESSION_MIN
from app.store.models import Connection, ExternalIdOrigin
from app.strict_json import JsonObject
from app.web.onboarding import page_data
from app.web.onboarding.statuses import progress_of

_OTHER_ROLES = 25
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_UNPROVEN = "No proof was made yet."
_ORIGINS = {
    ExternalIdOrigin.DEPUTY: "Made for this customer.",
    ExternalIdOrigin.IMPORTED: "Of an older system.",
}
_UNITS = ((DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


_STRANGER = "A second AWS account of {vendor} sends it too, and must be refused."
# Each answer has a name, a title, and paragraphs with an empty line between them
_ANSWERS = (
    (
        "trust",
        "Who may use the role",
        """
        One AWS identity of {vendor}, which aws:PrincipalArn names, with your External ID. Nobody
        else in {vendor}'s AWS account can use the role. This is its trust policy:
        """,
    ),
    (
        "external_id",
        "What the External ID prevents",
        """
        {vendor} works for many customers with the same AWS identity. Without an External ID,
        another customer could enter your role's ARN and have {vendor} use your account for them.
        AWS calls that the confused deputy problem.

        {vendor} sends your External ID when it works for you, and never when it works for another
        customer. Your role refuses every call without it.

        It was made for you from 256 random bits, and is never given to another customer. It is no
        password: who can read the role may see it.
        """,
    ),
    (
        "proof",
        "How access is proven",
        """
        Before {vendor} uses a role, it calls the role with your External ID, without one, with one
        that was never given to anybody, and with yours again. The role must accept yours, and
        refuse the others. {stranger} An unclear answer proves nothing.

        These sessions last {probe} and can do nothing, but for reading the role's own definition.

        The proof is repeated about every {interval}. No session begins after a proof that failed,
        until one passes, or if the latest proof that passed is older than {age}.

        Whom else the role trusts is only in its trust policy. If the role may read itself, each
        proof reads that too. A proof does not look at what the role permits.
        """,
    ),
    (
        "sessions",
        "How long sessions last",
        """
        {vendor} gets temporary credentials only. A session lasts {session} at most. No user, no
        password and no key that lasts is made in your account.

        A change of the trust policy keeps new sessions from beginning. Those that live end by
        themselves, or at once by RevokeSessionsBefore or AccessUntil.
        """,
    ),
    (
        "limits",
        "How you limit it",
        """
        AccessUntil: a time at which the access ends, sessions that live included.

        PermissionsBoundaryArn: a policy of yours that the role can never exceed.

        Both are optional parameters of the stack, of the Terraform configuration and of the
        script, now or later. You may also give the role fewer permissions, or further conditions.
        """,
    ),
    (
        "stop",
        "How you pause and end it",
        """
        To pause, set AccessUntil to a time that has passed. A later time, or none, gives access
        again.

        To end the sessions that live, set RevokeSessionsBefore to the present time. AWS takes some
        minutes to apply it everywhere.

        If {vendor}'s service is down, also empty RegistrationTopicArn in that update of the stack.
        Otherwise CloudFormation undoes the update after half an hour without an answer, and after
        an hour the stack takes no update until you choose Continue update rollback.

        To end the access, delete the stack, run terraform destroy, or delete the role {role}. You
        need no consent of {vendor}, and don't have to tell it.
        """,
    ),
    (
        "log",
        "What is logged",
        """
        Your CloudTrail records each AssumeRole, and as much of what was done in the session as
        your trails record. A session's name begins with deputy-, and tells which program of
        {vendor} it was for.

        {vendor} records each session before its credentials are handed out: the time, the program,
        the role, and the session's name, by which it can find the record again. It keeps these
        records {kept}.
        """,
    ),
)


def review_of(visit: Visit) -> dict[str, Any]:
    """Return what the page and the JSON say. Both show all of it."""
    config, link = services.config, visit.link
    kit = page_data.kit_of(visit)
    permission_set = services.onboarding.sets[link.permission_set]
    vendor = config.vendor
    other_roles = _other_roles(visit, kit)
    return {
        "vendor": {
            "name": vendor.vendor_name,
            "url": vendor.vendor_url,
            "support_url": vendor.support_url,
            "privacy_url": vendor.privacy_url,
        },
        "customer": visit.tenant.name,
        "as_of": f"{now():{_TIME}}",
        "other_roles": [_as_it_is(connection) for connection in other_roles[:_OTHER_ROLES]],
        "scope": _scope(visit, kit, other_roles),
        "aws_identity": kit.broker_principal_arn,
        "external_id": kit.external_id,
        "next_external_id": kit.next_external_id,
        "role_name": kit.role_name,
        "max_session_seconds": config.aws.max_session_seconds,
        "permission_set": {
            "name": permission_set.name,
            "version": permission_set.version,
            "title": permission_set.title,
            "description": permission_set.description,
            "access": permission_set.access,
            "administrator": permission_set.administrator,
        },
        "permissions": _permissions(permission_set, kit),
        "parameters": permission_set.parameters,
        "trust_policy": kit.trust_policy,
        "answers": _answers(config, kit),
    }


def _other_roles(visit: Visit, kit: Kit) -> Sequence[Connection]:
    return services.listing.list_others(
        visit.principal,
        visit.tenant.id,
        role_name=kit.role_name,
        permission_set=visit.link.permission_set,
        limit=_OTHER_ROLES + 1,
    )


def _as_it_is(connection: Connection) -> JsonObject:
    """Return the facts about a role that the kit does not describe, such as an imported one."""
    proof, (name, version) = connection.proof, connection.set_of_role
    is_labelled = version and len(connection.permission_sets) == 1
    return {
        "role_arn": connection.role_arn,
        "external_id": connection.external_id,
        "external_id_origin": _ORIGINS[connection.external_id_row.origin],
        "status": progress_of(connection).status,
        "proof_at": f"{proof.checked_at:{_TIME}}" if proof else None,
        "proof": [check["detail"] for check in proof.checks] if proof else [_UNPROVEN],
        "permissions": f"{name} version {version}" if is_labelled else "Not known to Deputy.",
    }


def _scope(visit: Visit, kit: Kit, other_roles: Sequence[Connection]) -> str | None:
    """Return what the rest of the sheet is about; None if it is about every role."""
    if not other_roles:
        return None
    vendor, total = services.config.vendor.vendor_name, len(other_roles)
    theirs = "the roles above" if total > 1 else other_roles[0].role_arn
    shown = f"These are {_OTHER_ROLES} of them. " if total > _OTHER_ROLES else ""
    scope = (
        f"{shown}All that follows is about {kit.role_name}, the role that {vendor} asks for now,"
        f" and not about {theirs}."
    )
    if total == sum(services.listing.summary(visit.principal, visit.tenant.id).values()):
        scope += " No such role is connected yet."
    return scope


def _permissions(permission_set: PermissionSet, kit: Kit) -> list[JsonObject]:
    """Return each permission with its reason. The role's permission to read itself comes last."""
    statements = permission_set.policy(kit.partition)["Statement"]
    asked = [
        _permission(statement, given["why"])
        for statement, given in zip(statements, permission_set.statements, strict=True)
    ]
    managed = permission_set.managed_policy_arns(kit.partition)
    for arn, policy in zip(managed, permission_set.managed_policies, strict=True):
        asked.append({"name": policy["name"], "why": policy["why"], "managed_policy": arn})
    own = {
        "Sid": "read-itself",
        "Effect": "Allow",
        "Action": [*READS_ITSELF],
        "Resource": f"arn:{kit.partition}:iam::<your account>:role/{kit.role_name}",
    }
    why = (
        "Shows whom the role's trust policy lets in, and whether permissions are missing. You may"
        " remove this policy."
    )
    return [*asked, _permission(own, why)]


def _permission(statement: JsonObject, why: str) -> JsonObject:
    return {
        "name": statement["Sid"],
        "why": why,
        "effect": statement["Effect"],
        "actions": texts(statement["Action"]),
        "resources": texts(statement["Resource"]),
        "condition": statement.get("Condition"),
    }


def _answers(config: Config, kit: Kit) -> list[JsonObject]:
    vendor, proofs = config.vendor.vendor_name, config.proofs
    days = config.database.audit_retention_days
    interval = math.ceil(services.proof_queue.interval.current().seconds / 60)  # minutes
    has_stranger = proofs.canary_role_arn and proofs.stranger_role_arn
    values = {
        "vendor": vendor,
        "role": kit.role_name,
        "session": _duration(config.aws.max_session_seconds),
        "probe": _duration(SESSION_MIN),
        "interval": _duration(interval * 60).removeprefix("1 "),
        "age": _duration(proofs.proof_max_age),
        "stranger": _STRANGER.format(vendor=vendor) if has_stranger else "",
        "kept": f"for at least {days} days" if days else "without an end",
    }
    answers = []
    for name, title, text in _ANSWERS:
        paragraphs = text.format(**values).split("\n\n")
        words = [" ".join(paragraph.split()) for paragraph in paragraphs]
        answers.append({"name": name, "title": title, "paragraphs": words})
    return answers


def _duration(seconds: int) -> str:
    """Return a duration in words, in the largest unit of which it is a multiple."""
    for size, unit in _UNITS:
        number, rest = divmod(seconds, size)
        if number and not rest:
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return f"{seconds} seconds"
