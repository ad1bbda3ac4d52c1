"""The regions and partitions of AWS, its consoles, and the names under which SNS sends messages."""

import re
from functools import cache

import boto3
from botocore.exceptions import UnknownRegionError

from app.config import Config, ConfigError

# Hosts of AWS's consoles, which botocore's data does not have
_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-us-gov": "console.amazonaws-us-gov.com",
    "aws-cn": "console.amazonaws.cn",
}
# Regions of the partition `aws` that are older than 20 March 2019. Every later one has to be
# enabled in an account (opt-in), and SNS sends from it to another region under a regional name.
_ENABLED_BY_DEFAULT = re.compile(
    "ap-northeast-[12]|ap-south-1|ap-southeast-[12]|ca-central-1|eu-central-1|eu-north-1"
    "|eu-west-[123]|sa-east-1|us-east-[12]|us-west-[12]"
)


@cache
def regions(partition: str) -> frozenset[str]:
    """Return the regions of a partition in which CloudFormation runs, from botocore's data."""
    return frozenset(boto3.session.Session().get_available_regions("cloudformation", partition))


@cache
def partition_of(region: str) -> str | None:
    """Return the partition of a region, or None if this is not a region's name.

    Also works for a region that is newer than this botocore.
    """
    try:
        return boto3.session.Session().get_partition_for_region(region)
    except UnknownRegionError:
        return None


def ensure_console(config: Config) -> None:
    """Check that the region and a known console belong to the broker's partition.

    Raises ConfigError for a partition whose console is unknown, or a region outside the partition.
    """
    ours, theirs = config.aws.broker.partition, partition_of(config.aws.region)
    if theirs != ours:
        place = f"the partition {theirs}" if theirs else "no partition that is known here"
        raise ConfigError(
            f"AWS_REGION: {config.aws.region} is in {place}, but DEPUTY_BROKER_PRINCIPAL_ARN in"
            f" {ours}. A deployment serves the one partition of its broker, and its region must"
            " be there."
        )
    if config.aws.console_url is None and ours not in _CONSOLES:
        raise ConfigError(
            f"DEPUTY_CONSOLE_URL: must be set: the console of the partition {ours} is not known"
            " here."
        )


def console_home(config: Config, region: str) -> str:
    """Return the URL of CloudFormation's console in a region."""
    partition = config.aws.broker.partition
    console = config.aws.console_url or f"https://{region}.{_CONSOLES[partition]}"
    return f"{console}/cloudformation/home?region={region}"


def sns_sender(topic_arn: str, queue_region: str) -> str:
    """Return the service principal under which SNS sends a topic's messages to the queue."""
    _, partition, _, region, *_ = topic_arn.split(":")
    opt_in = partition == "aws" and not _ENABLED_BY_DEFAULT.fullmatch(region)
    service = f"sns.{region}" if opt_in and region != queue_region else "sns"
    return f"{service}.amazonaws.com"
