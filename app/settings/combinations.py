"""Checks of several settings together, each of which is valid by itself.

An invalid setting has the value MISSING.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from typing import Any

from app.settings.checks import ROLE_CHAINING_MAX
from app.settings.vendor_name import NAME_MAX, ascii_form, identifies_vendor


def check_role_chaining(values: Mapping[str, Any]) -> Iterator[str]:
    broker, seconds = values["broker"], values["max_session_seconds"]
    if MISSING not in (broker, seconds) and broker.is_role and seconds > ROLE_CHAINING_MAX:
        yield (
            f"DEPUTY_MAX_SESSION_SECONDS: at most {ROLE_CHAINING_MAX} while"
            " DEPUTY_BROKER_PRINCIPAL_ARN is a role: AWS calls that role chaining and gives such a"
            " caller one hour."
        )


def check_registration(values: Mapping[str, Any]) -> Iterator[str]:
    topic, queue, broker = (
        values[name] for name in ("registration_topic_arn", "registration_queue_url", "broker")
    )
    if MISSING in (topic, queue):
        return
    if bool(topic) != bool(queue):
        missing = "QUEUE_URL" if topic else "TOPIC_ARN"
        yield (
            f"DEPUTY_REGISTRATION_{missing}: the topic and the queue belong together; set both or"
            " neither."
        )
    elif topic and broker is not MISSING:
        _, partition, _, _, account, _ = topic.split(":")
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


def check_ascii_name(values: Mapping[str, Any]) -> Iterator[str]:
    name, given = values["vendor_name"], values["vendor_name_ascii"]
    if name is MISSING or given is not None or identifies_vendor(form := ascii_form(name)):
        return
    yield (
        "DEPUTY_VENDOR_NAME_ASCII: must be set, to the name that customers see in their AWS"
        " accounts: AWS takes ASCII alone in some places, and there a name has 2 letters at least"
        f" and {NAME_MAX} characters at most. What is left of DEPUTY_VENDOR_NAME is {form!r}."
    )


def check_canary(values: Mapping[str, Any]) -> Iterator[str]:
    broker, accounts, prefix = (
        values[name] for name in ("broker", "vendor_account_ids", "role_prefix")
    )
    if MISSING in (broker, accounts, prefix):
        return
    for name in ("Canary", "Stranger"):
        role, variable = values[f"{name.lower()}_role_arn"], f"DEPUTY_{name.upper()}_ROLE_ARN"
        if role in (None, MISSING):
            continue
        if role.partition != broker.partition:
            yield f"{variable}: must be in the partition of DEPUTY_BROKER_PRINCIPAL_ARN."
        elif role.account_id in {broker.account_id, *accounts}:
            yield (
                f"{variable}: must be in an account that is neither the broker's nor one of"
                " DEPUTY_VENDOR_ACCOUNT_IDS, because the broker's policy denies those. Launch"
                " cloudformation/canary.yaml in another account of yours, and set this to its"
                f" output {name}RoleArn."
            )
        elif not role.name.startswith(prefix):
            yield (
                f"{variable}: the role's name must begin with DEPUTY_ROLE_PREFIX, which is"
                f" {prefix}: the broker can assume no other. Launch cloudformation/canary.yaml with"
                " this RolePrefix."
            )
