"""Hide the vendor's steps of a diagnosis from tenants, and other tenants from everybody."""

import json
import re
from collections.abc import Collection
from dataclasses import replace

from app.diagnosis.steps import OF_THE_VENDOR, DiagnosisStep
from app.ids import EXTERNAL_ID_PATTERN
from app.strict_json import JsonObject

# A tenant sees one of these instead of the vendor's steps. The worst outcome comes first.
_TOLD_TENANTS = (
    DiagnosisStep(
        "problem",
        "Something on the vendor's side is wrong. The role needs no change.",
        "Customer: tell the vendor.",
    ),
    DiagnosisStep(
        "unknown",
        "The vendor's side gave no clear answer.",
        "Customer: try again in a minute. If it stays so, tell the vendor.",
    ),
    DiagnosisStep("ok", "The vendor's side works."),
)


def for_the_tenant(result: list[DiagnosisStep]) -> list[DiagnosisStep]:
    """Return the steps with the vendor's steps merged into one.

    The merged step hides their details, and says only whether the vendor must act.
    """
    outcomes = {step.outcome for step in result[: len(OF_THE_VENDOR)]}
    worst = next(step for step in _TOLD_TENANTS if step.outcome in outcomes)
    return [replace(worst, name="vendor"), *result[len(OF_THE_VENDOR) :]]


def without_other_tenants(trust_policy: JsonObject, own_ids: Collection[str]) -> JsonObject:
    """Return a role's trust policy, with other tenants' External IDs replaced in any case."""

    def visible(match: re.Match[str]) -> str:
        return match[0] if match[0].lower() in own_ids else "(not this tenant's)"

    text = re.sub(EXTERNAL_ID_PATTERN, visible, json.dumps(trust_policy), flags=re.IGNORECASE)
    policy: JsonObject = json.loads(text)
    return policy
