"""The CA certificates to trust, where AWS is called without a boto3 client."""

import os
from typing import Any

from botocore.session import Session


def ca_bundle(boto: Session) -> Any:
    """Return the file of CA certificates that botocore would use; True for the default ones.

    AWS_CA_BUNDLE or the profile comes first, then REQUESTS_CA_BUNDLE.
    """
    given = boto.get_config_variable("ca_bundle")
    # a setting of AWS's SDKs, not ours
    return given or os.environ.get("REQUESTS_CA_BUNDLE") or True  # noqa: TID251
