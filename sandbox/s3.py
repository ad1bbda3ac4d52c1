"""S3's permissions: a request's action, and whether bucket policy and caller together allow it.

moto allows every signed request everything, in every account. Here buckets belong to their account,
a session may do what its role's policies allow, and unsigned requests read what a bucket policy
publishes.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, s3_backends
from werkzeug.wrappers import Request as HttpRequest

from sandbox.errors import AwsError, access_denied, unsupported
from sandbox.identity import Permissions, context_of
from sandbox.policy import Caller, Grant, Kind, Request, evaluate_resource

# The sub-resources of buckets, and the names of their actions.
_BUCKET_PARTS = {
    "acl": "BucketAcl",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "location": "BucketLocation",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
}
_BUCKET_LISTS = {"versions": "s3:ListBucketVersions", "uploads": "s3:ListBucketMultipartUploads"}
_OBJECT_PARTS = {"acl": "ObjectAcl", "attributes": "ObjectAttributes", "tagging": "ObjectTagging"}
_UPLOADS = {"GET": "s3:ListMultipartUploadParts", "DELETE": "s3:AbortMultipartUpload"}
_VERBS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete"}
# Query arguments that do not change the action.
_OPTIONS = {
    "bucket-region",
    "continuation-token",
    "delete",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "key-marker",
    "list-type",
    "marker",
    "max-buckets",
    "max-keys",
    "partNumber",
    "prefix",
    "start-after",
    "uploadId",
    "uploads",
    "version-id-marker",
    "versionId",
    "versions",
    "x-id",
    # arguments of presigned URLs in the old format
    "AWSAccessKeyId",
    "Expires",
    "Signature",
}


def authorise(request: HttpRequest, caller: Caller, permissions: Permissions) -> None:
    """Check that the caller may send the request.

    Raises AWS's refusal if it may not.
    """
    # S3's own condition keys. Only write requests have s3:if-none-match.
    keys = {"s3:prefix": request.args.get("prefix")}
    if request.method in {"PUT", "POST"}:
        keys["s3:if-none-match"] = request.headers.get("If-None-Match")
    for action, bucket_name, key in _actions(request):
        if not allowed(caller, permissions, action, bucket_name, key, keys=keys):
            resource = "*" if not bucket_name else _arn(bucket_name, key)
            if caller.kind is Kind.ANONYMOUS:
                if bucket_name and _bucket(bucket_name) is None:
                    raise AwsError(404, "NoSuchBucket", "The specified bucket does not exist")
                raise AwsError(403, "AccessDenied", "Access Denied")
            raise access_denied(caller.arn, action, resource)


def allowed(
    caller: Caller,
    permissions: Permissions,
    action: str,
    bucket_name: str,
    key: str | None,
    *,
    keys: Mapping[str, str | None] | None = None,
) -> bool:
    bucket = _bucket(bucket_name)
    owner = bucket.account_id if bucket is not None else caller.account
    context = context_of(caller, **{"aws:ResourceAccount": owner, **(keys or {})})
    request = Request(action, _arn(bucket_name, key) if bucket_name else "*", context)
    grant = Grant.NONE
    if bucket is not None and bucket.policy is not None:
        grant = evaluate_resource(bucket.policy.decode(), caller, request)
    if caller.kind is Kind.ANONYMOUS:
        return bucket is not None and _public(bucket, key, grant, action)
    return permissions.permit(
        request, grant, same_account=caller.account == owner, identity_suffices=True
    )


def _public(bucket: Any, key: str | None, grant: Grant, action: str) -> bool:
    block = bucket.public_access_block
    if grant is Grant.PRINCIPAL:
        return block is None or str(block.restrict_public_buckets).lower() != "true"
    if (
        grant is Grant.DENIED
        or action != "s3:GetObject"
        or (block and str(block.ignore_public_acls).lower() == "true")
    ):
        return False
    stored = bucket.keys.get(key)
    return stored is not None and stored.acl is not None and bool(stored.acl.public_read)


def _bucket(name: str) -> Any:
    partition, account = s3_backends.bucket_accounts.get(name, ("aws", ""))
    return s3_backends[account][partition].buckets.get(name) if account else None


def _arn(bucket: str, key: str | None) -> str:
    return f"arn:aws:s3:::{bucket}/{key}" if key is not None else f"arn:aws:s3:::{bucket}"


def _actions(request: HttpRequest) -> Iterator[tuple[str, str, str | None]]:
    """Yield the actions that the request needs, each with its bucket and key."""
    bucket, key = _address(request)
    for name in sorted(
        request.args.keys() - _OPTIONS - _BUCKET_PARTS.keys() - _OBJECT_PARTS.keys()
    ):
        if not name.lower().startswith(("x-amz-", "response-")):
            raise unsupported(f"S3 requests with {name}")
    if not bucket:
        yield "s3:ListAllMyBuckets", "", None
    elif not key and request.method == "POST" and "delete" in request.args:
        # AWS refuses or deletes each object separately. Here one refusal refuses the whole request.
        for action, name in _deletions(request):
            yield action, bucket, name
    elif not key:
        yield _bucket_action(request), bucket, None
    else:
        yield _object_action(request), bucket, key
        source = request.headers.get("x-amz-copy-source", "").lstrip("/")
        if source:
            source_bucket, _, source_key = source.partition("/")
            yield "s3:GetObject", source_bucket, source_key.partition("?")[0]


def _address(request: HttpRequest) -> tuple[str, str]:
    """Return the bucket and key, from the path or from a host such as `bucket.localhost`.

    boto3 uses path style for every custom endpoint.
    """
    path = request.path.lstrip("/")
    host = request.host.partition(":")[0]
    if host.endswith(".localhost"):
        return host.removesuffix(".localhost"), path
    bucket, _, key = path.partition("/")
    return bucket, key


def _bucket_action(request: HttpRequest) -> str:
    part = _first(_BUCKET_PARTS, request)
    if part is not None:
        # S3 has one Put action to write and remove a sub-resource, except for the bucket policy
        verb = "Put" if request.method == "DELETE" and part != "BucketPolicy" else _verb(request)
        return f"s3:{verb}{part}"
    match request.method:
        case "GET" | "HEAD":
            return _first(_BUCKET_LISTS, request) or "s3:ListBucket"
        case "PUT":
            return "s3:CreateBucket"
        case "DELETE":
            return "s3:DeleteBucket"
        case _:
            raise unsupported(f"{request.method} on a bucket")


def _deletions(request: HttpRequest) -> Iterator[tuple[str, str]]:
    """Yield the action and key for each object to delete. Restore the body for moto."""
    body = request.get_data(cache=True, parse_form_data=False)
    request.environ["wsgi.input"] = io.BytesIO(body)
    for doomed in ET.fromstring(body).iterfind("{*}Object"):  # noqa: S314  the developer's own XML
        version = "Version" if doomed.findtext("{*}VersionId") else ""
        yield f"s3:DeleteObject{version}", doomed.findtext("{*}Key") or ""


def _object_action(request: HttpRequest) -> str:
    if "uploadId" in request.args or "uploads" in request.args:
        return _UPLOADS.get(request.method, "s3:PutObject")
    part = _first(_OBJECT_PARTS, request) or "Object"
    version = "Version" if "versionId" in request.args and part == "Object" else ""
    return f"s3:{_verb(request)}{part}{version}"


def _first(names: Mapping[str, str], request: HttpRequest) -> str | None:
    """Return the entry in `names` for the first query argument that has one, or None."""
    for argument in request.args:
        if argument in names:
            return names[argument]
    return None


def _verb(request: HttpRequest) -> str:
    try:
        return _VERBS[request.method]
    except KeyError:
        raise unsupported(f"the S3 method {request.method}") from None


def install() -> None:
    """Make moto permit everything.

    moto's own check of bucket policies lacks conditions and HEAD, and would refuse allowed
    requests.
    """
    FakeBucket.get_permission = lambda _self, _action, _resource: PermissionResult.PERMITTED
