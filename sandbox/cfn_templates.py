"""CloudFormation templates: their source, their parsing, and the capabilities that they need."""

import copy
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

import yaml
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import Stack
from moto.s3.models import s3_backends

from sandbox import s3
from sandbox.identity import Permissions
from sandbox.policy import Caller, Kind

_IAM_TYPES = re.compile(r"AWS::IAM::\w+")
_NAME_PROPERTIES = {"RoleName", "UserName", "GroupName", "ManagedPolicyName", "InstanceProfileName"}

_parsed = lru_cache(maxsize=64)(Stack.parse_template)


# moto is untyped here
class InsufficientCapabilitiesError(CloudFormationError):  # type: ignore[misc]
    code = "InsufficientCapabilitiesException"


def parse(body: str) -> Mapping[str, Any]:
    """Parse a template.

    Raises ValidationError for text that is not a template.
    """
    try:
        template = Stack.parse_template(body)
    except (ValueError, yaml.YAMLError) as error:
        raise ValidationError(message=f"Template format error: {error}") from None
    if (
        not isinstance(template, dict)
        or not isinstance(template.get("Resources"), dict)
        or not template["Resources"]
    ):
        raise ValidationError(
            message="Template format error: At least one Resources member must be defined."
        )
    return cast("Mapping[str, Any]", template)


def _parse_once(body: str) -> Any:
    """Parse a template, or copy the cached result.

    A StackSet uses one template a thousand times, and parsing takes longer than the rest of a
    stack.
    """
    return copy.deepcopy(_parsed(body))  # moto writes into the parsed template


def check_capabilities(template: Mapping[str, Any], given: list[str]) -> None:
    needed = ""
    for resource in template["Resources"].values():
        if _IAM_TYPES.fullmatch(str(resource.get("Type"))):
            needed = needed or "CAPABILITY_IAM"
            if _NAME_PROPERTIES & set(resource.get("Properties") or {}):
                needed = "CAPABILITY_NAMED_IAM"
    if needed and needed not in given and "CAPABILITY_NAMED_IAM" not in given:
        raise InsufficientCapabilitiesError(f"Requires capabilities : [{needed}]")


def read(url: str, account: str) -> str:
    """Read a template from S3 with the permissions of the stack's creator, as AWS does.

    moto itself would read any object of any account.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or re.fullmatch(r"s3[a-z0-9.-]*\.amazonaws\.com", host):
        bucket, _, key = parts.path.lstrip("/").partition("/")
    elif re.fullmatch(r"[a-z0-9.-]+\.s3[a-z0-9.-]*\.amazonaws\.com", host):
        bucket, key = host.partition(".s3")[0], parts.path.lstrip("/")
    else:
        raise ValidationError(message="TemplateURL must be a supported URL.")
    root = f"arn:aws:iam::{account}:root"
    if not s3.allowed(
        Caller(Kind.ROOT, account, root, root, account),
        Permissions(unlimited=True),
        "s3:GetObject",
        bucket,
        key,
    ):
        raise ValidationError(message="S3 error: Access Denied")
    owner = s3_backends.bucket_accounts.get(bucket)
    stored = s3_backends[owner[1]][owner[0]].get_object(bucket, key) if owner else None
    if stored is None:
        raise ValidationError(message="S3 error: The specified key does not exist.")
    return str(stored.value.decode())


def without_external_id(body: str) -> str:
    """Return a copy of a template whose roles require no External ID, which Deputy must detect."""
    template = _parse_once(body)
    for resource in template["Resources"].values():
        if resource.get("Type") != "AWS::IAM::Role":
            continue
        statements = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        if isinstance(statements, dict):
            statements = [statements]
        for statement in statements:
            if conditions := _without_external_id(statement.pop("Condition", {})):
                statement["Condition"] = conditions
    return json.dumps(template, default=str)


def _without_external_id(conditions: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for operator, comparisons in conditions.items():
        others = {k: v for k, v in comparisons.items() if k.lower() != "sts:externalid"}
        if others:
            kept[operator] = others
    return kept


def install() -> None:
    Stack.parse_template = staticmethod(_parse_once)
