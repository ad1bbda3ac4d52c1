"""boto3 sessions for your customers' AWS accounts, with credentials that Deputy issues.

The credentials are renewed automatically.

Usage:

    import deputy_client

    aws = deputy_client.session(tenant_id, connection_id)
    for bucket in aws.client("s3").list_buckets()["Buckets"]: ...
"""

from deputy_client.credentials import report_refused, session
from deputy_client.errors import (
    BadRequest,
    ConfigurationError,
    DeputyError,
    NotPermitted,
    NotVerified,
    RoleRefused,
    Suspended,
    Unreachable,
)

__all__ = [
    "BadRequest",
    "ConfigurationError",
    "DeputyError",
    "NotPermitted",
    "NotVerified",
    "RoleRefused",
    "Suspended",
    "Unreachable",
    "report_refused",
    "session",
]
