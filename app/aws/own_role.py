"""A role reads itself: what IAM tells a session of the role that may do nothing else (invariant 6).

A proof reads the role's trust policy. Whether IAM answers says nothing about who may use the role, so there is one
attempt, and a slow or silent IAM costs little.
"""

import json
import re
from typing import Any
from urllib.parse import unquote

import urllib3
from botocore.credentials import ReadOnlyCredentials

from app import strict_json
from app.aws.breaker import Breaker
from app.aws.errors import AWS_ERRORS, Refused, Unavailable, classify
from app.aws.query import QueryApi
from app.ids import Grant, RoleArn

_READS = ["iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies", "iam:ListAttachedRolePolicies"]
_SECONDS = 2

TrustPolicy = Any  # parsed JSON; None when it is not JSON as we read it


def session_policy(role_arn: RoleArn) -> str:
    """Lets a session read its own role, as far as the role may, and nothing else."""
    # A path may hold what a policy takes for patterns and variables. An account has one role of a name, whatever its path.
    own = re.sub(r"[*?$]", "?", role_arn.text)
    statement = {"Effect": "Allow", "Action": _READS, "Resource": own}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))


class OwnRole:
    """IAM in the partition of `region`. Made without a call; the connections are opened when they are needed."""

    def __init__(self, region: str) -> None:
        self._api = QueryApi("iam", region, urllib3.Timeout(total=_SECONDS))
        self._breaker = Breaker()  # IAM may be silent while STS is not

    def trust_policy(self, session: ReadOnlyCredentials, grant: Grant, role_unique_id: str) -> TrustPolicy:
        """The trust policy of the session's own role. Raises Refused when the role may not read itself, or Unavailable."""
        try:
            with self._breaker.call(grant.external_id):
                role = self._api.once("GetRole", {"RoleName": grant.role_arn.name}, session)["Role"]
                document, found = unquote(role["AssumeRolePolicyDocument"]), role["RoleId"]
        except AWS_ERRORS as error:
            failed = classify(error)
            raise (failed if isinstance(failed, Refused) else Unavailable()) from error
        if found != role_unique_id:
            raise Unavailable
        try:
            return strict_json.parse(document)
        except ValueError:
            return None
