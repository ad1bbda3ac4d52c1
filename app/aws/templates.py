"""Render customers' templates and the documents of permission sets.

The templates' sources are in cloudformation/. customer-role.yaml creates the role in one account.
customer-org.yaml creates it in every account of an organisation. Its text contains the rendered
customer-role.yaml, so no link can replace that template.

The files in the repository are valid templates with example values, and rendering replaces each of
these values. The broker's ARN is part of the template's text. If it were a parameter, anybody could
send a victim a link to the vendor's genuine template with another principal. The account of the
registration topic is part of the text as well.

A template's name in the bucket has a hash of its content, so links to it stay valid when a newer
one is published.
"""

import hashlib
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import jinja2

from app.aws.template_bucket import Template, documents_of
from app.config import TemplateConfig
from app.permissions.permission_sets import PermissionSet
from app.permissions.set_rules import without_reasons
from app.settings.valid_values import ROLE_MAX_DEFAULT
from app.strict_json import JsonObject

_FOLDER = Path(__file__).parents[2] / "cloudformation"
_SOURCE = _FOLDER / "customer-role.yaml"
_ORGANIZATION_SOURCE = _FOLDER / "customer-org.yaml"
_MARK = "# permission set: {}\n"
_BEGIN, _END = "# permissions: begin\n", "# permissions: end\n"
_TOPICS = "arn:aws:sns:[a-z0-9-]+:111122223333:"
# The parts of a template that depend on the permission set, by the mark that each replaces. JSON is
# valid YAML. The properties and values pass the customer's parameters on to the registration and to
# the StackSet.
_PARTS = {
    "statements": """\
{% for statement in permission_set.statements %}
# {{ statement.why }}
- {{ statement | policy | indent(2) }}
{% endfor %}
""",
    "managed policies": """\
{% if permission_set.managed_policies %}
# Policies that AWS keeps.
ManagedPolicyArns:
{% endif %}
{% for policy in permission_set.managed_policies %}
  # {{ policy.why }}
  - !Sub arn:${AWS::Partition}:iam::aws:policy/{{ policy.name }}
{% endfor %}
""",
    "group": """\
{% if permission_set.parameters %}
- Label:
    default: For you to fill in
  Parameters:
{% endif %}
{% for parameter in permission_set.parameters %}
    - {{ parameter.name }}
{% endfor %}
""",
    "parameters": """\
{% for parameter in permission_set.parameters %}
{% set example = "such as " ~ parameter.example %}
{{ parameter.name }}:
  Type: "String"
  Description: {{ (parameter.description ~ " (" ~ example ~ ")") | json }}
  AllowedPattern: {{ parameter.pattern | json }}
  ConstraintDescription: {{ ("must match " ~ parameter.pattern ~ ", " ~ example) | json }}
{% endfor %}
""",
    "properties": """\
{% for parameter in permission_set.parameters %}
{{ parameter.name }}: !Ref {{ parameter.name }}
{% endfor %}
""",
    "values": """\
{% for parameter in permission_set.parameters %}
- ParameterKey: {{ parameter.name }}
  ParameterValue: !Ref {{ parameter.name }}
{% endfor %}
""",
}


def render(config: TemplateConfig, permission_set: PermissionSet) -> Template:
    """Return the template for one permission set.

    Raises ValueError when the source lacks a value that must be replaced.
    """
    broker, duration = config.aws.broker, "MaxSessionDuration: {}"
    values = {
        "arn:aws:iam::111122223333:root": f"arn:{broker.partition}:iam::{broker.account_id}:root",
        "arn:aws:iam::111122223333:role/DeputyBroker": broker.arn,
        duration.format(ROLE_MAX_DEFAULT): duration.format(role_seconds(config)),
        "example-set@1": permission_set.label,
    }
    before, rest = _split(_with_values(_SOURCE, config, values), _BEGIN)
    _, after = _split(rest, _END)
    indent = before[before.rindex("\n") + 1 :]
    text = f"{before}{_BEGIN}{indent}{_MARK.format('statements')}{indent}{_END}{after}"
    parts = "statements", "managed policies", "group", "parameters", "properties"
    return _template(text, _SOURCE, permission_set, *parts)


def render_organization(
    config: TemplateConfig, role: Template, permission_set: PermissionSet
) -> Template:
    """Return the template for a whole organisation, which contains the rendered `role`.

    Raises ValueError as `render` does.
    """
    values = {}
    for name in ("Conditions", "Resources", "Outputs"):
        values[f"  # customer-role.yaml: {name}\n"] = _section(role.body, name)
    body = textwrap.indent(role.body, " " * 8)
    values["TemplateBody: example-template-body\n"] = f"TemplateBody: |\n{body}"
    text = _with_values(_ORGANIZATION_SOURCE, config, values)
    return _template(text, _ORGANIZATION_SOURCE, permission_set, "group", "parameters", "values")


def render_document(permission_set: PermissionSet) -> Template:
    """Return the document of a permission set as an object of the bucket."""
    key = f"{documents_of(permission_set.name)}{permission_set.version}.json"
    return Template(str(permission_set.version), key, permission_set.document())


def _with_values(source: Path, config: TemplateConfig, values: dict[str, str]) -> str:
    """Return the source with the vendor's own values instead of the examples.

    `values`: the value for each example. This function adds the vendor's name and the pattern for
    its topics. A topic must be in the vendor's account, so the pattern begins with that account.
    Raises ValueError if the source lacks one of the examples.
    """
    broker, text = config.aws.broker, source.read_text(encoding="utf-8")
    values = {
        _TOPICS: f"arn:{broker.partition}:sns:[a-z0-9-]+:{broker.account_id}:",
        "Example Vendor": config.vendor.vendor_in_aws,
        **values,
    }
    for example, value in values.items():
        _split(text, example)
        text = text.replace(example, value)
    return text


def _template(text: str, source: Path, permission_set: PermissionSet, *parts: str) -> Template:
    """Return the template for the text, with these parts in place of their marks."""
    for part in parts:
        before, after = _split(text, _MARK.format(part))
        above, newline, indent = before.rpartition("\n")
        block = _jinja.get_template(part).render(permission_set=permission_set)
        text = f"{above}{newline}{textwrap.indent(block, indent)}{after}"
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    key = f"templates/{source.stem}/{permission_set.name}/{version}.yaml"
    return Template(version, key, text.replace("example-version", version))


def _section(text: str, name: str) -> str:
    """Return the text below a top-level key of a template, up to the next key."""
    _, rest = _split(text, f"\n{name}:\n")
    return re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0].rstrip() + "\n"


def role_seconds(config: TemplateConfig) -> int:
    """Return the MaxSessionDuration for roles.

    It is the duration of the longest session that Deputy issues, but at least IAM's minimum.
    """
    return max(ROLE_MAX_DEFAULT, config.aws.max_session_seconds)


def _split(text: str, mark: str) -> tuple[str, str]:
    """Return the text before the mark and after it. Raises ValueError if there is no mark."""
    if mark not in text:
        raise ValueError(f"The template does not contain {mark.strip()}")
    before, _, after = text.partition(mark)
    return before, after


def _with_sub(value: Any) -> Any:
    """Wrap each string that has a template variable in Fn::Sub.

    IAM's own variables stay as they are.
    """
    if isinstance(value, str):
        plain = re.sub(r"\$\{(?=[a-z0-9-]+:|[*?$]\})", "${!", value)
        return {"Fn::Sub": plain} if re.search(r"\$\{(?!!)", plain) else value
    if isinstance(value, dict):
        return {key: _with_sub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_sub(item) for item in value]
    return value


def _policy(statement: JsonObject) -> str:
    """Return the statement as in a template's policy."""
    [policy] = without_reasons([statement])
    return json.dumps(_with_sub(policy), indent=2)


_jinja = jinja2.Environment(
    autoescape=False,  # noqa: S701  a template is not HTML
    loader=jinja2.DictLoader(_PARTS),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
_jinja.filters |= {"json": json.dumps, "policy": _policy}
