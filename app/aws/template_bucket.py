"""The vendor's bucket: publish customers' templates and documents, and read what is published.

CloudFormation opens templates from S3 only. app/aws/templates.py renders the templates, and the
documents of permission sets.
"""

import enum
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import boto3
from botocore import UNSIGNED
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from app.aws.errors import AWS_ERRORS, Unavailable, status_of
from app.config import TemplateConfig
from app.errors import ConflictError

_DOCUMENT = re.compile(r"([1-9][0-9]{0,5})\.json", re.ASCII)
_DOCUMENTS_MAX = 1_000  # objects; the most that S3 lists in one call
_DOCUMENT_MAX = 65_536  # bytes; IAM's limits for a role keep a document far below this
_TOO_MANY = (
    f"{{name}}: version: The bucket has more than {_DOCUMENTS_MAX:,} objects below {{prefix}}, and"
    " Deputy reads no more. Remove those that you did not publish (docs/runbooks.md), or give the"
    " file of the set another name."
)
_UNSIGNED = BotoConfig(
    signature_version=UNSIGNED,
    connect_timeout=2,
    read_timeout=3,
    retries={"total_max_attempts": 1},
    # Customers' CloudFormation need not share our choice of endpoints
    use_fips_endpoint=False,
    use_dualstack_endpoint=False,
)


class Template(NamedTuple):
    """An object of the bucket: a template or a document. `key`: its name in the bucket.

    `version`: for a template, the start of the content's SHA-256; for a document, the permission
    set's version.
    """

    version: str
    key: str
    body: str


class Published(enum.StrEnum):
    """The state of a template in the bucket, in words for the operator."""

    YES = "published"
    ALREADY = "there already"
    MISSING = "is missing, or not public"
    DIFFERS = "differs from this configuration's"


def documents_of(name: str) -> str:
    """Return where the documents of a permission set are: the beginning of their names."""
    return f"templates/sets/{name}/"


@contextmanager
def _available() -> Iterator[None]:
    """Raise Unavailable for errors of calls to AWS."""
    try:
        yield
    except AWS_ERRORS as error:
        raise Unavailable(str(error)) from error


class TemplateBucket:
    """The bucket with the templates that launch links open."""

    def __init__(self, config: TemplateConfig) -> None:
        self._bucket = config.aws.template_bucket
        self._boto = boto3.session.Session(region_name=config.aws.region)

    @cached_property
    def _unsigned(self) -> Any:
        """A client for S3 that uses no credentials.

        Both clients are made on first use: loading S3's model would take 20 % of the start-up time,
        and few processes need it. A web process needs only the bucket's address.
        """
        return self._boto.client("s3", config=_UNSIGNED)

    @cached_property
    def _signed(self) -> Any:
        return self._boto.client("s3")

    def url(self, template: Template) -> str:
        """Return the template's public address, in the bucket's partition and region."""
        return f"{self._unsigned.meta.endpoint_url}/{self._bucket}/{template.key}"

    def publish(self, template: Template) -> Published:
        """Upload the template, unless the bucket has an object of this name.

        Returns YES, ALREADY or DIFFERS. Raises Unavailable.
        """
        is_json = template.key.endswith(".json")
        with _available():
            s3 = self._signed
            try:
                s3.put_object(
                    Bucket=self._bucket,
                    Key=template.key,
                    Body=template.body.encode(),
                    ContentType="application/json" if is_json else "text/yaml; charset=utf-8",
                    CacheControl="public, max-age=31536000, immutable",
                    IfNoneMatch="*",
                )
            except ClientError as error:
                if status_of(error) != 412:
                    raise
                return Published.ALREADY if self._holds(s3, template) else Published.DIFFERS
        return Published.YES

    def published(self, template: Template) -> Published:
        """Return whether the bucket serves the template to customers, who read it unsigned.

        Raises Unavailable.
        """
        with _available():
            try:
                return Published.YES if self._holds(self._unsigned, template) else Published.DIFFERS
            except ClientError as error:
                # AWS answers 403 for an absent object when the principal may not list the bucket.
                if status_of(error) in {403, 404}:
                    return Published.MISSING
                raise

    def documents(self, name: str, first_version: int) -> dict[int, str]:
        """Return a permission set's documents by version, from `first_version` on.

        The bucket's content is not trusted. So the number of objects, and the bytes that are read
        of each, are limited. Raises Unavailable, and ConflictError for too many objects.
        """
        prefix = documents_of(name)
        documents = {}
        with _available():
            s3 = self._signed
            answer = s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=_DOCUMENTS_MAX)
            if answer["IsTruncated"]:
                raise ConflictError(_TOO_MANY.format(name=name, prefix=prefix))
            for item in answer.get("Contents", ()):
                match = _DOCUMENT.fullmatch(item["Key"], len(prefix))
                if match and int(match[1]) >= first_version:
                    content = self._content(s3, item["Key"], _DOCUMENT_MAX)
                    documents[int(match[1])] = content.decode(errors="replace")
        return documents

    def _holds(self, s3: Any, template: Template) -> bool:
        """Return whether the object of the template's name has the template's content."""
        body = template.body.encode()
        return self._content(s3, template.key, len(body) + 1) == body

    def _content(self, s3: Any, key: str, most: int) -> bytes:
        answer = s3.get_object(Bucket=self._bucket, Key=key)
        with closing(answer["Body"]) as stream:
            content: bytes = stream.read(most)
            return content
