"""The launch URL: AWS's quick-create link.

It opens CloudFormation's console with a template and its parameters.
"""

from urllib.parse import quote, urlencode

from app.aws.templates import partition_of
from app.config import Config, ConfigError

# Hosts of AWS's consoles, which botocore's data does not have
_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-us-gov": "console.amazonaws-us-gov.com",
    "aws-cn": "console.amazonaws.cn",
}


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


def stack_url(config: Config, region: str, stack_name: str) -> str:
    """Return the URL of the console's list of stacks, filtered by this name."""
    return f"{_home(config, region)}#/stacks?{urlencode({'filteringText': stack_name})}"


def launch_url(
    config: Config, region: str, template_url: str, stack_name: str, parameters: dict[str, str]
) -> str:
    """Return a launch URL. Everything after # is one fragment, which has its own query."""
    fields = {"templateURL": template_url, "stackName": stack_name}
    fields |= {f"param_{name}": value for name, value in parameters.items()}
    query = urlencode(fields, quote_via=quote, safe="")
    return f"{_home(config, region)}#/stacks/create/review?{query}"


def _home(config: Config, region: str) -> str:
    partition = config.aws.broker.partition
    console = config.aws.console_url or f"https://{region}.{_CONSOLES[partition]}"
    return f"{console}/cloudformation/home?region={region}"
