"""The console's view of a template before its creation: its address, parameters and capabilities.

CloudFormation opens templates only from S3. The console refuses every other address, so a link can
make this server fetch only an object of the sandbox.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

MAX_TEMPLATE_BYTES = 1_000_000
MAX_URL_LENGTH = 1024

_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]"
_S3_HOST = re.compile(
    rf"(?:(?P<bucket>[a-z0-9][a-z0-9.-]*[a-z0-9])\.)?s3(?:[.-]{_REGION})?\.amazonaws\.com(?:\.cn)?"
)
_NAMED_BY = {
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
}
_UNNAMED = {"AWS::IAM::AccessKey", "AWS::IAM::Policy", "AWS::IAM::UserToGroupAddition"}


class TemplateRefused(Exception):  # noqa: N818 - it is a refusal, worded as AWS words it
    """A refusal of a template, in AWS's own words."""


@dataclass(frozen=True)
class Parameter:
    name: str
    label: str
    description: str
    default: str
    is_list: bool  # comma-separated; each member must match the pattern
    no_echo: bool
    allowed_values: list[str]
    allowed_pattern: str
    constraint: str


@dataclass(frozen=True)
class Group:
    label: str
    parameters: list[Parameter]


@dataclass(frozen=True)
class Template:
    text: str
    description: str
    groups: list[Group]
    capability: str  # CAPABILITY_NAMED_IAM, CAPABILITY_IAM, or empty if the template needs neither

    @property
    def parameters(self) -> list[Parameter]:
        return list(chain.from_iterable(group.parameters for group in self.groups))


def object_named_by(template_url: str, *, aws_url: str) -> tuple[str, str]:
    """Return the bucket and key that a TemplateURL names.

    Raises TemplateRefused unless it is a URL of AWS's S3 or of the sandbox.
    """
    if len(template_url) > MAX_URL_LENGTH:
        raise TemplateRefused(
            f"1 validation error detected: Value '{template_url}' at 'templateURL' failed to"
            f" satisfy constraint: Member must have length less than or equal to {MAX_URL_LENGTH}"
        )
    try:
        url = urlsplit(template_url)
    except ValueError:
        raise TemplateRefused("TemplateURL must be a supported URL.") from None
    path = unquote(url.path).removeprefix("/")
    sandbox = urlsplit(aws_url)
    if url.scheme == "https" and (host := _S3_HOST.fullmatch(url.netloc)):
        path = "/".join(filter(None, [host["bucket"], path]))
    elif url.scheme != "http" or url.netloc not in {sandbox.netloc, f"localhost:{sandbox.port}"}:
        raise TemplateRefused("TemplateURL must be a supported URL.")
    bucket, _, key = path.partition("/")
    if not (bucket and key):
        raise TemplateRefused(
            "TemplateURL must reference a valid S3 object to which you have access."
        )
    return bucket, key


def read(text: str) -> Template:
    """Parse the parts of a template that the console shows."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise TemplateRefused(f"Template format error: YAML not well-formed.{where}") from None
    except yaml.YAMLError:
        raise TemplateRefused("Template format error: YAML not well-formed.") from None
    if not isinstance(document, dict):
        raise TemplateRefused("Template format error: unsupported structure.")
    resources = _mapping(document.get("Resources"))
    if not resources:
        raise TemplateRefused(
            "Template format error: At least one Resources member must be defined."
        )
    return Template(
        text=text,
        description=str(document.get("Description") or ""),
        groups=_groups(document),
        capability=_capability(resources),
    )


class _Loader(yaml.SafeLoader):
    """A YAML loader that replaces CloudFormation's functions by their names."""


_Loader.add_multi_constructor("!", lambda _loader, suffix, _node: f"!{suffix}")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _capability(resources: Mapping[str, Any]) -> str:
    needed = ""
    for resource in map(_mapping, resources.values()):
        kind = str(resource.get("Type"))
        if _NAMED_BY.get(kind) in _mapping(resource.get("Properties")):
            return "CAPABILITY_NAMED_IAM"
        if kind in _NAMED_BY or kind in _UNNAMED:
            needed = "CAPABILITY_IAM"
    return needed


def _groups(document: Mapping[str, Any]) -> list[Group]:
    """Group parameters in the template's order. As in AWS's console, others come last, by name."""
    interface = _mapping(_mapping(document.get("Metadata")).get("AWS::CloudFormation::Interface"))
    labels = _mapping(interface.get("ParameterLabels"))
    left = {}
    for name, declared in sorted(_mapping(document.get("Parameters")).items()):
        left[str(name)] = _parameter(str(name), _mapping(declared), _label(labels.get(name)))
    groups, others = [], ""
    for group in map(_mapping, interface.get("ParameterGroups") or []):
        others = "Other parameters"
        parameters = [left.pop(name) for name in group.get("Parameters") or [] if name in left]
        if parameters:
            groups.append(Group(_label(group.get("Label")), parameters))
    if left:
        groups.append(Group(others, list(left.values())))
    return groups


def _label(value: object) -> str:
    return str(_mapping(value).get("default") or "")


def _parameter(name: str, declared: Mapping[str, Any], label: str) -> Parameter:
    return Parameter(
        name=name,
        label=label,
        description=_text(declared.get("Description")),
        default=_text(declared.get("Default")),
        is_list=_text(declared.get("Type")).startswith(("CommaDelimitedList", "List<")),
        no_echo=_text(declared.get("NoEcho")) == "true",
        allowed_values=[_text(value) for value in declared.get("AllowedValues") or []],
        allowed_pattern=_text(declared.get("AllowedPattern")),
        constraint=_text(declared.get("ConstraintDescription")),
    )


def _text(value: object) -> str:
    """Return a YAML value as text, because CloudFormation's parameters are text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
