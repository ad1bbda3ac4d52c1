"""S3's permissions: the action of a request, and whether bucket policy and caller together allow
it.

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

# Sub-resources of buckets, and what their actions are called.
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
# Query arguments that choose how, and not what.
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
    # of presigned URLs in the old manner
    "AWSAccessKeyId",
    "Expires",
    "Signature",
}


def authorise(request: HttpRequest, caller: Caller, permissions: Permissions) -> None:
    """Raises AWS's answer unless the caller may do what the request asks for."""
    keys = _condition_keys(request)
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


def _condition_keys(request: HttpRequest) -> dict[str, str | None]:
    """S3's own condition keys that this request has. Of conditional requests, those that write
    have one.
    """
    writes = request.method in {"PUT", "POST"}
    return {
        "s3:prefix": request.args.get("prefix"),
        "s3:if-none-match": request.headers.get("If-None-Match") if writes else None,
    }


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
    """The actions that the request needs, each with its bucket and key."""
    bucket, key = _address(request)
    unknown = {
        name
        for name in request.args
        if name not in _OPTIONS | set(_BUCKET_PARTS) | set(_OBJECT_PARTS)
        and not name.lower().startswith(("x-amz-", "response-"))
    }
    if unknown:
        raise unsupported(f"S3 requests with {', '.join(sorted(unknown))}")
    if not bucket:
        yield "s3:ListAllMyBuckets", "", None
    elif not key and request.method == "POST" and "delete" in request.args:
        # AWS refuses or deletes each object by itself. Here the refusal of one refuses the whole
        # request.
        yield from ((action, bucket, name) for action, name in _deletions(request))
    elif not key:
        yield _bucket_action(request), bucket, None
    else:
        yield _object_action(request), bucket, key
        source = request.headers.get("x-amz-copy-source", "").lstrip("/")
        if source:
            source_bucket, _, source_key = source.partition("/")
            yield "s3:GetObject", source_bucket, source_key.partition("?")[0]


def _address(request: HttpRequest) -> tuple[str, str]:
    """Path style, which boto3 uses for every endpoint of one's own, or `bucket.localhost`."""
    path = request.path.lstrip("/")
    host = request.host.partition(":")[0]
    if host.endswith(".localhost"):
        return host.removesuffix(".localhost"), path
    bucket, _, key = path.partition("/")
    return bucket, key


def _bucket_action(request: HttpRequest) -> str:
    part = next((_BUCKET_PARTS[name] for name in request.args if name in _BUCKET_PARTS), None)
    if part is not None:
        # S3 has one Put action for writing and removing such a part, but for the bucket policy.
        verb = "Put" if request.method == "DELETE" and part != "BucketPolicy" else _verb(request)
        return f"s3:{verb}{part}"
    match request.method:
        case "GET" | "HEAD":
            return next(
                (_BUCKET_LISTS[name] for name in request.args if name in _BUCKET_LISTS),
                "s3:ListBucket",
            )
        case "PUT":
            return "s3:CreateBucket"
        case "DELETE":
            return "s3:DeleteBucket"
        case _:
            raise unsupported(f"{request.method} on a bucket")


def _deletions(request: HttpRequest) -> Iterator[tuple[str, str]]:
    """The action and the key for each object that the request deletes. Puts the body back for
    moto to read.
    """
    body = request.get_data(cache=True, parse_form_data=False)
    request.environ["wsgi.input"] = io.BytesIO(body)
    for doomed in ET.fromstring(body).iterfind("{*}Object"):  # noqa: S314  of a developer's own
        version = doomed.findtext("{*}VersionId")
        yield (
            "s3:DeleteObjectVersion" if version else "s3:DeleteObject",
            doomed.findtext("{*}Key") or "",
        )


def _object_action(request: HttpRequest) -> str:
    if "uploadId" in request.args or "uploads" in request.args:
        return _UPLOADS.get(request.method, "s3:PutObject")
    part = next((_OBJECT_PARTS[name] for name in request.args if name in _OBJECT_PARTS), "Object")
    version = "Version" if "versionId" in request.args and part == "Object" else ""
    return f"s3:{_verb(request)}{part}{version}"


def _verb(request: HttpRequest) -> str:
    try:
        return _VERBS[request.method]
    except KeyError:
        raise unsupported(f"the S3 method {request.method}") from None


def install() -> None:
    """Moto's own reading of bucket policies knows no conditions and no HEAD, and would refuse
    what was allowed here.
    """
    FakeBucket.get_permission = lambda _self, _action, _resource: PermissionResult.PERMITTED
