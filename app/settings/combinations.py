"""Checks for conflicts between settings that are valid by themselves.

A check's parameters are the values of the settings with these names. It is called only if all of
them are valid, and yields a message for each conflict.
"""

from collections.abc import Iterator
from typing import Any

from app.settings.checks import ROLE_CHAINING_MAX
from app.settings.vendor_name import NAME_MAX, ascii_form, identifies_vendor


def check_role_chaining(broker: Any, max_session_seconds: int) -> Iterator[str]:
    if broker.is_role and max_session_seconds > ROLE_CHAINING_MAX:
        yield (
            f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while"
            " DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS calls that role chaining and gives such a"
            " caller one hour."
        )


def check_registration(
    broker: Any, registration_topic_arn: str | None, registration_queue_url: str | None
) -> Iterator[str]:
    if bool(registration_topic_arn) != bool(registration_queue_url):
        missing = "QUEUE_URL" if registration_topic_arn else "TOPIC_ARN"
        yield (
            f"DEPUTY_REGISTRATION_{missing}: the topic and the queue belong together; set both or"
            " neither."
        )
    elif registration_topic_arn:
        _, partition, _, _, account, _ = registration_topic_arn.split(":")
        if partition != broker.partition:
            yield (
                "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the partition of"
                " DEPUTY_BROKER_PRINCIPAL_ARN."
            )
        elif account != broker.account_id:
            yield (
                "DEPUTY_REGISTRATION_TOPIC_ARN: must be in the account of"
                " DEPUTY_BROKER_PRINCIPAL_ARN: customers' templates take no other account's topics."
            )


def check_ascii_name(vendor_name: str, vendor_name_ascii: str | None) -> Iterator[str]:
    form = ascii_form(vendor_name)
    if vendor_name_ascii is None and not identifies_vendor(form):
        yield (
            "DEPUTY_VENDOR_NAME_ASCII: must be set, to the name that customers see in their AWS"
            " accounts: AWS takes ASCII alone in some places, and there a name has 2 letters at"
            f" least and {NAME_MAX} characters at most. What is left of DEPUTY_VENDOR_NAME is"
            f" {form!r}."
        )


def check_canary(
    broker: Any,
    vendor_account_ids: frozenset[str],
    role_prefix: str,
    canary_role_arn: Any,
    stranger_role_arn: Any,
) -> Iterator[str]:
    for name, role in (("Canary", canary_role_arn), ("Stranger", stranger_role_arn)):
        variable = f"DEPUTY_{name.upper()}_ROLE_ARN"
        if role is None:
            continue
        if role.partition != broker.partition:
            yield f"{variable}: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
        elif role.account_id in {broker.account_id, *vendor_account_ids}:
            yield (
                f"{variable}: must be in an account that is neither the broker's nor one of"
                " DEPUTY_VENDOR_ACCOUNT_IDS, because the broker's policy denies those. Launch"
                " cloudformation/canary.yaml in another account of yours, and set this to its"
                f" output {name}RoleArn."
            )
        elif not role.name.startswith(role_prefix):
            yield (
                f"{variable}: the role's name must begin with DEPUTY_ROLE_PREFIX, which is"
                f" {role_prefix}: the broker can assume no other. Launch"
                " cloudformation/canary.yaml with this RolePrefix."
            )
