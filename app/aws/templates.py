"""The templates that customers launch: rendered from the files in cloudformation/, and published to S3.

customer-role.yaml makes the role in one account. customer-org.yaml makes it in every account of an organisation; the
rendered customer-role.yaml is part of its text, so nothing is fetched later, and no link can put another in its place.

A file in the repository is valid as it lies there, with example values; rendering replaces each of them. The broker's
ARN is baked in and is no parameter: with a parameter, anybody could send a victim the vendor's genuine template with
their own principal in the link. So is the account of the registration topic: a link can name a topic of it, or none. CloudFormation opens templates only from S3, so each one is uploaded under a name that
contains its content's hash: links stay valid when a newer one is published.
"""

import enum
import hashlib
import json
import re
import textwrap
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError, UnknownRegionError
from botocore.parsers import ResponseParserError

from app.aws.errors import Unavailable
from app.config import Broker, Config
from app.permissions.permission_sets import PermissionSet

_FOLDER = Path(__file__).parents[2] / "cloudformation"
_SOURCE = _FOLDER / "customer-role.yaml"
_ORGANIZATION_SOURCE = _FOLDER / "customer-org.yaml"
_BEGIN, _END = "# permissions: begin\n", "# permissions: end\n"
_VENDOR = "Example Vendor"
_TOPICS = "arn:aws:sns:[a-z0-9-]+:111122223333:"
_EXAMPLE_VERSION = "example-version"
_EXAMPLE_BODY = "TemplateBody: example-template-body\n"


@dataclass(frozen=True, slots=True)
class Template:
    """A rendered template: `version` is the start of its content's SHA-256, `key` its name in the bucket."""

    permission_set: str
    version: str
    key: str
    body: str


class Published(enum.StrEnum):
    """What the bucket shows under a template's name; the words are for people."""

    YES = "published"
    MISSING = "is missing, or not public"
    DIFFERS = "differs from this configuration's"


def render(config: Config, permission_set: PermissionSet) -> Template:
    """The template for one permission set. Raises ValueError when the source lacks a value that must be replaced."""
    broker = config.broker
    text = _SOURCE.read_text(encoding="utf-8")
    for example, value in (
        ("arn:aws:iam::111122223333:root", f"arn:{broker.partition}:iam::{broker.account_id}:root"),
        ("arn:aws:iam::111122223333:role/DeputyBroker", broker.arn),
        (_TOPICS, _topics_of(broker)),
        (_VENDOR, config.vendor_in_aws),
        ("MaxSessionDuration: 3600", f"MaxSessionDuration: {role_seconds(config)}"),
    ):
        text = _must_contain(text, example).replace(example, value)
    text = _with_permissions(text, permission_set)
    return _versioned(text, _SOURCE.stem, permission_set.name)


def render_organization(config: Config, role: Template) -> Template:
    """The template for a whole organisation around the rendered `role`. Raises ValueError as `render` does."""
    text = _ORGANIZATION_SOURCE.read_text(encoding="utf-8")
    for example, value in ((_TOPICS, _topics_of(config.broker)), (_VENDOR, config.vendor_in_aws)):
        text = _must_contain(text, example).replace(example, value)
    for name in ("Conditions", "Resources", "Outputs"):
        mark = f"  # customer-role.yaml: {name}\n"
        text = _must_contain(text, mark).replace(mark, _section(role.body, name))
    body = textwrap.indent(role.body, " " * 8)
    text = _must_contain(text, _EXAMPLE_BODY).replace(_EXAMPLE_BODY, f"TemplateBody: |\n{body}")
    return _versioned(text, _ORGANIZATION_SOURCE.stem, role.permission_set)


def _topics_of(broker: Broker) -> str:
    """How the pattern for the topic begins: only the vendor's account has topics that are told of roles."""
    return f"arn:{broker.partition}:sns:[a-z0-9-]+:{broker.account_id}:"


def _versioned(text: str, name: str, permission_set: str) -> Template:
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Template(
        permission_set=permission_set,
        version=version,
        key=f"templates/{name}/{permission_set}/{version}.yaml",
        body=text.replace(_EXAMPLE_VERSION, version),
    )


def _section(text: str, name: str) -> str:
    """What stands below a key of a template's top level, up to the next such key."""
    _, _, rest = _must_contain(text, f"\n{name}:\n").partition(f"\n{name}:\n")
    return re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0].rstrip() + "\n"


def role_seconds(config: Config) -> int:
    """The role's MaxSessionDuration: as long as we may ask for, and IAM's own minimum at least."""
    return max(3600, config.max_session_seconds)


def _with_permissions(text: str, permission_set: PermissionSet) -> str:
    """The statements between the two marks replaced, as JSON, which is YAML, at the marks' own indentation."""
    before, _, rest = _must_contain(text, _BEGIN).partition(_BEGIN)
    _, _, after = _must_contain(rest, _END).partition(_END)
    indent = before[before.rindex("\n") + 1 :]
    statements = [_with_sub(statement) for statement in permission_set.statements]
    lines = [
        line for statement in statements for line in f"- {json.dumps(statement, indent=2)}".splitlines(keepends=True)
    ]
    body = "".join(f"{indent}{'' if line.startswith('- ') else '  '}{line.rstrip()}\n" for line in lines)
    return f"{before}{_BEGIN}{body}{indent}{_END}{after}"


def _must_contain(text: str, mark: str) -> str:
    if mark not in text:
        raise ValueError(f"The template does not contain {mark.strip()}")
    return text


def _with_sub(value: Any) -> Any:
    """Strings with a CloudFormation variable in them wrapped in Fn::Sub, which alone replaces it."""
    if isinstance(value, str):
        return {"Fn::Sub": value} if "${AWS::" in value else value
    if isinstance(value, dict):
        return {key: _with_sub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_sub(item) for item in value]
    return value


class TemplateBucket:
    """The bucket that launch links point into."""

    def __init__(self, config: Config) -> None:
        self._bucket = config.template_bucket
        self._boto = boto3.session.Session(region_name=config.region)
        # Unsigned: what the web needs is the bucket's address, and it has no credentials for anything in there.
        self._endpoint = self._boto.client("s3", config=BotoConfig(signature_version=UNSIGNED)).meta.endpoint_url

    def url(self, template: Template) -> str:
        """Where CloudFormation, and anybody, reads the template; in the partition and region of the bucket."""
        return f"{self._endpoint}/{self._bucket}/{template.key}"

    def publish(self, template: Template) -> bool:
        """Upload; False when it is there already, which is never overwritten. Raises Unavailable."""
        try:
            with closing(self._boto.client("s3")) as s3:
                s3.put_object(
                    Bucket=self._bucket,
                    Key=template.key,
                    Body=template.body.encode(),
                    ContentType="text/yaml; charset=utf-8",
                    CacheControl="public, max-age=31536000, immutable",
                    IfNoneMatch="*",
                )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "PreconditionFailed":
                return False
            raise Unavailable(str(error)) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise Unavailable(str(error)) from error
        return True

    def published(self, template: Template) -> Published:
        """What is there under the template's name, asked without credentials, as customers ask. Raises Unavailable."""
        settings = BotoConfig(
            signature_version=UNSIGNED, connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 1}
        )
        wanted = template.body.encode()
        try:
            with closing(self._boto.client("s3", config=settings)) as s3:
                answer = s3.get_object(Bucket=self._bucket, Key=template.key)
                with closing(answer["Body"]) as body:
                    found = body.read(len(wanted) + 1)
        except ClientError as error:
            # Without the right to list the bucket, AWS refuses what is absent.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in {403, 404}:
                return Published.MISSING
            raise Unavailable(str(error)) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise Unavailable(str(error)) from error
        return Published.YES if found == wanted else Published.DIFFERS


@cache
def regions(partition: str) -> frozenset[str]:
    """The regions of a partition in which CloudFormation runs, as this release of botocore knows them."""
    return frozenset(boto3.session.Session().get_available_regions("cloudformation", partition))


def partition_of(region: str) -> str | None:
    """The partition that a region's name belongs to, also of a region newer than this botocore; None for no name."""
    try:
        return boto3.session.Session().get_partition_for_region(region)
    except UnknownRegionError:
        return None
