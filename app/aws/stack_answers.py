"""Answer a stack's request by a PUT to its response URL.

Anybody may publish a request, so its response URL is untrusted. Deputy calls the URL only if it is
in AWS's own bucket for such answers.
"""

import re
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.regions import EndpointResolver
from botocore.utils import get_environ_proxies

from app.aws.stack_messages import Request
from app.aws.tls import ca_bundle
from app.log import logger

_URL_MAX = 8192
# A retry follows at once, and only if S3 did not answer or answered 5xx. Redelivery by SQS causes
# later attempts.
_ATTEMPTS = 2
_TIMEOUTS: Any = (2, 3)  # seconds to connect, and to wait for the answer


class StackAnswers:
    """Sends answers to stacks, but only to AWS's own addresses for such answers.

    `endpoint`: S3's address if AWS_ENDPOINT_URL replaces AWS's, otherwise None. If it is given,
    answers go only there.
    """

    def __init__(self, region: str, partition: str, endpoint: str | None) -> None:
        self._allowed = _allowed(region, partition, endpoint)
        ca: Any = ca_bundle(botocore.session.get_session())
        proxies = get_environ_proxies(endpoint or f"https://s3.{region}.{_suffix(partition)}")
        self._http = URLLib3Session(verify=ca, proxies=proxies, timeout=_TIMEOUTS)

    def allows(self, url: str) -> bool:
        """Return whether CloudFormation itself could have given this address."""
        match = self._allowed.fullmatch(url[: _URL_MAX + 1])
        if match is None or len(url) > _URL_MAX:
            return False
        # A server that normalizes the path must not be led to another bucket.
        return {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(match["path"])))

    def send(self, request: Request, refusal: str | None) -> bool:
        """Send the answer, and return whether the request is finished.

        It is finished if the stack has its answer, or if S3 would refuse every retry. Raises
        ValueError for an address that is not allowed.
        """
        if not self.allows(request.response_url):
            raise ValueError("This address is not one of AWS's for answers.")
        # The URL is signed for an empty Content-Type. botocore's session does not follow redirects.
        put = AWSRequest(
            "PUT", request.response_url, headers={"Content-Type": ""}, data=request.answer(refusal)
        ).prepare()
        problem: str | int = ""
        final = False
        for _ in range(_ATTEMPTS):
            try:
                problem = self._http.send(put).status_code
            except BotoCoreError as error:  # its text contains the address
                problem = type(error).__name__
            else:
                if 200 <= problem < 300:
                    return True
                # 3xx: redirects are not followed. 4xx: the address has expired, or was never
                # signed.
                if problem < 500:
                    final = problem >= 400
                    break
        logger.warning("registration.unanswered", problem=problem, final=final)
        return final


def stack_answers(region: str, partition: str) -> StackAnswers:
    """Return the StackAnswers for the topic's region and the S3 that the environment configures."""
    s3 = boto3.session.Session(region_name=region).client(
        "s3", config=BotoConfig(signature_version=UNSIGNED)
    )
    parts = urlsplit(s3.meta.endpoint_url)
    aws_own = (parts.hostname or "").endswith(f".{_suffix(partition)}")
    return StackAnswers(region, partition, None if aws_own else f"{parts.scheme}://{parts.netloc}")


def _suffix(partition: str) -> str:
    """Return the partition's domain, from botocore's data."""
    endpoints = botocore.session.get_session().get_data("endpoints")
    return str(EndpointResolver(endpoints).get_partition_dns_suffix(partition))


def _allowed(region: str, partition: str, endpoint: str | None) -> re.Pattern[str]:
    """Return a pattern that must match the whole of an allowed address.

    The address must be in lower case up to the path, without characters that two parsers could read
    differently. The bucket's name must match exactly, because a longer name may be anybody's
    bucket. A domain without a region is allowed in the partition `aws` alone, because in another
    partition anybody may own that name.
    """
    bucket = f"cloudformation-custom-resource-response-{region.replace('-', '')}"
    suffix = _suffix(partition)
    if endpoint:
        start = rf"{re.escape(endpoint)}(?P<path>/{bucket}/"
    else:
        # The part between "s3" and the partition's domain
        regions = rf"[.-]{re.escape(region)}\."
        if partition == "aws":
            regions = rf"(?:{regions}|\.)"
        host = rf"{re.escape(bucket)}\.s3{regions}{re.escape(suffix)}"
        start = rf"https://{host}(?::443)?(?P<path>/"
    characters = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]"
    return re.compile(rf"{start}(?:{characters}|/)*)(?:\?(?:{characters}|[/?])*)?", re.ASCII)
