"""moto's CloudFormation, corrected: what AWS checks is checked, failures roll back, and what is missing says so.

Here is what is checked before anything is made. cfn_stacks makes, updates and deletes, cfn_resources holds the types.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, cast
from urllib.parse import urlsplit

import yaml
from moto.cloudformation import parsing
from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import Stack
from moto.cloudformation.parsing import ResourceMap
from moto.cloudformation.responses import CloudFormationResponse
from moto.s3.models import s3_backends

from sandbox import cfn_resources, cfn_roles, cfn_stacks, s3
from sandbox.cfn_parameters import check_parameters, shown
from sandbox.cfn_stacks import wanted
from sandbox.identity import Permissions
from sandbox.policy import Caller, Kind

_IAM_TYPES = re.compile(r"AWS::IAM::\w+")
_NAME_PROPERTIES = {"RoleName", "UserName", "GroupName", "ManagedPolicyName", "InstanceProfileName"}
_MAX_BODY = 51_200


class InsufficientCapabilitiesError(CloudFormationError):  # type: ignore[misc]  # moto is untyped here
    code = "InsufficientCapabilitiesException"


def _checked_request(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Moto never looks at Capabilities, template sizes, or text that is no template at all."""

    @wraps(original)
    def wrapper(self: Any) -> Any:
        body = self._get_param("TemplateBody")
        if body is not None and len(body.encode()) > _MAX_BODY:
            raise ValidationError(
                message="1 validation error detected: Value at 'templateBody' failed to satisfy constraint:"
                f" Member must have length less than or equal to {_MAX_BODY}"
            )
        url = self._get_param("TemplateURL")
        if url:
            body = self._get_stack_from_s3_url(url)
        if body:
            _check_capabilities(_parse(body), self._get_param("Capabilities", []))
        return original(self)

    return wrapper


def _parse(body: str) -> Mapping[str, Any]:
    try:
        template = Stack.parse_template(body)
    except (ValueError, yaml.YAMLError) as error:
        raise ValidationError(message=f"Template format error: {error}") from None
    if (
        not isinstance(template, dict)
        or not isinstance(template.get("Resources"), dict)
        or not template["Resources"]
    ):
        raise ValidationError(message="Template format error: At least one Resources member must be defined.")
    return cast("Mapping[str, Any]", template)


def _check_capabilities(template: Mapping[str, Any], given: list[str]) -> None:
    iam = [r for r in template["Resources"].values() if _IAM_TYPES.fullmatch(str(r.get("Type")))]
    if not iam or "CAPABILITY_NAMED_IAM" in given:
        return
    named = any(_NAME_PROPERTIES & set(resource.get("Properties") or {}) for resource in iam)
    if named or "CAPABILITY_IAM" not in given:
        raise InsufficientCapabilitiesError(
            f"Requires capabilities : [CAPABILITY_{'NAMED_' if named else ''}IAM]"
        )


def _template_from_url(self: Any, url: str) -> str:
    """Moto reads any object of anybody. AWS reads S3 only, and with the permissions of whoever makes the stack."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or re.fullmatch(r"s3[a-z0-9.-]*\.amazonaws\.com", host):
        bucket, _, key = parts.path.lstrip("/").partition("/")
    elif re.fullmatch(r"[a-z0-9.-]+\.s3[a-z0-9.-]*\.amazonaws\.com", host):
        bucket, key = host.partition(".s3")[0], parts.path.lstrip("/")
    else:
        raise ValidationError(message="TemplateURL must be a supported URL.")
    account = self.current_account
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
    found = s3_backends[owner[1]][owner[0]].get_object(bucket, key) if owner else None
    if found is None:
        raise ValidationError(message="S3 error: The specified key does not exist.")
    return str(found.value.decode())


def _load(self: Any) -> None:
    """Moto's own steps, with the parameters' constraints and the resource types checked where AWS checks them."""
    check_parameters(self._template, self.input_parameters)
    self.load_mapping()
    self.transform_mapping()
    self.load_parameters()
    self.load_conditions()
    for name, resource in self._template.get("Resources", {}).items():
        if wanted(self, resource):
            _check_type(name, str(resource.get("Type")))
    self.validate_outputs()


def _check_type(name: str, kind: str) -> None:
    """Moto makes stacks that lack what it does not know, and reports them complete."""
    if kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource":
        raise ValidationError(
            message=f"The sandbox has no custom resources yet: resource {name} of type {kind} cannot be created."
        )
    if kind not in parsing.get_model_map():
        raise ValidationError(
            message=f"The sandbox has no resource type {kind}, which resource {name} needs."
        )


def _splitting_lists(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """As moto leaves the default of a list parameter in one piece, and the blanks around its members."""

    def load_parameters(self: Any) -> None:
        original(self)
        for name, slot in self._template.get("Parameters", {}).items():
            if not str(slot.get("Type", "")).startswith(("CommaDelimitedList", "List<")):
                continue
            value = self.resolved_parameters[name]
            members = value.split(",") if isinstance(value, str) else value
            members = [text.strip() if isinstance(text, str) else text for text in members]
            self.resolved_parameters[name] = self._parsed_resources[name] = members

    return load_parameters


def _parameter_list(self: Any) -> list[dict[str, str]]:
    """Moto shows NoEcho parameters in clear, and lists as lists."""
    slots = self.template_dict.get("Parameters", {})
    return [
        {
            "ParameterKey": name,
            "ParameterValue": "****" if slots.get(name, {}).get("NoEcho") else shown(value),
        }
        for name, value in self.resource_map.resolved_parameters.items()
    ]


@cache
def install() -> None:
    """Patches moto, once per process: a second patch would call the first as the original."""
    for name in ("create_stack", "update_stack", "create_change_set"):
        setattr(CloudFormationResponse, name, _checked_request(getattr(CloudFormationResponse, name)))
    CloudFormationResponse._get_stack_from_s3_url = _template_from_url
    ResourceMap.load = _load
    ResourceMap.load_parameters = _splitting_lists(ResourceMap.load_parameters)
    Stack.parameter_list = property(_parameter_list)
    cfn_resources.install()
    cfn_roles.install()
    cfn_stacks.install()
