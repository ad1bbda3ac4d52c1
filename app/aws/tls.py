"""The CA certificates to trust, where AWS is called without a boto3 client."""

import os

from botocore.session import Session


def ca_bundle(boto: Session) -> str | bool:
    """The file of CAs, found as botocore does: AWS_CA_BUNDLE or the profile, then
    REQUESTS_CA_BUNDLE; or True.
    """
    given: str | None = boto.get_config_variable("ca_bundle")
    # a setting of AWS's SDKs, not ours
    return given or os.environ.get("REQUESTS_CA_BUNDLE") or True  # noqa: TID251
