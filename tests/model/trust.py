"""Trust policies as customers write them, and the model's own reading of them.

It shares no code with Deputy's reader or with the sandbox's evaluator: a policy is kept as what it
means, and written as JSON for AWS alone.
"""

import fnmatch
import re
from dataclasses import dataclass
from typing import Literal

from sandbox.vendor import VENDOR_ACCOUNT

BROKER = f"arn:aws:iam::{VENDOR_ACCOUNT}:role/DeputyBroker"
_KEY = "sts:ExternalId"
_SOMEBODY_ELSE = "arn:aws:iam::555566667777:root"
_OLD_VALUE = "acme-1"  # what another system of the vendor's sends
# How customers write, or miswrite, a role's trust policy: see `written`.
HANDS = (
    "as the kit says",
    "the current one alone",
    "the next one alone",
    "the one before",
    "without a condition",
    "if it exists",
    "by its beginning",
    "but for its last digit",
    "denied without it",
    "open under another name",
    "somebody else's too",
    "somebody else's alone",
    "for another account",
    "another system's too",
)
LOOSE = HANDS[4:8]


@dataclass(frozen=True)
class Way:
    """One statement that allows. `compares`: how the External ID is compared with `values`."""

    compares: Literal[
        "StringEquals", "StringLike", "StringEqualsIfExists", "nothing", "the session's name"
    ]
    values: tuple[str, ...] = ()
    to: str = BROKER

    def lets_in(self, external_id):
        """Our broker, under a session name of Deputy's."""
        if self.to != BROKER or self.compares == "the session's name":
            return False
        if self.compares == "nothing":
            return True
        if external_id is None:
            return self.compares == "StringEqualsIfExists"
        if self.compares == "StringLike":
            return any(re.fullmatch(fnmatch.translate(value), external_id) for value in self.values)
        return external_id in self.values

    def lets_in_more_than(self, external_ids):
        """Our broker, under any session name, with none of these External IDs. Another system's
        value is no tenant's.
        """
        if self.to != BROKER:
            return False
        return self.compares != "StringEquals" or not set(self.values) <= {
            _OLD_VALUE,
            *external_ids,
        }

    def statement(self):
        condition = {"ArnEquals": {"aws:PrincipalArn": self.to}} if self.to == BROKER else {}
        if self.compares == "the session's name":
            condition["StringLike"] = {"sts:RoleSessionName": "audit-*"}
        elif self.compares != "nothing":
            condition[self.compares] = {_KEY: list(self.values)}
        principal = f"arn:aws:iam::{VENDOR_ACCOUNT}:root" if self.to == BROKER else self.to
        return {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            **({"Condition": condition} if condition else {}),
        }


@dataclass(frozen=True)
class Trust:
    """A trust policy. `denies_but`: a Deny for every External ID but these, and for none."""

    ways: tuple[Way, ...]
    denies_but: tuple[str, ...] | None = None

    def lets_in(self, external_id):
        denied = self.denies_but is not None and external_id not in self.denies_but
        return not denied and any(way.lets_in(external_id) for way in self.ways)

    def lets_in_strangers(self, external_id):
        """As the calls of a proof find out: without an External ID, or with one that only looks
        like this one.
        """
        alike = f"{external_id[:20]}{'0' * 32}{external_id[52:]}"
        return self.lets_in(None) or self.lets_in(alike)

    def reads_open(self, external_ids):
        """As its text shows: some statement lets us in with none of the tenant's External IDs."""
        if self.denies_but is None:
            return any(way.lets_in_more_than(external_ids) for way in self.ways)
        strange = set(self.denies_but) - set(external_ids)
        return any(way.lets_in(external_id) for way in self.ways for external_id in strange)

    def document(self):
        statements = [way.statement() for way in self.ways]
        if self.denies_but is not None:
            condition = {"StringNotEquals": {_KEY: list(self.denies_but)}}
            deny = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}
            statements.append(deny | {"Condition": condition})
        return {"Version": "2012-10-17", "Statement": statements}


def written(hand, current, upcoming, before, foreign):
    """By one of HANDS. `foreign`: another tenant's External ID."""
    kit = (current, upcoming) if upcoming else (current,)
    equals = Way("StringEquals", kit)
    ways = {
        "the current one alone": Way("StringEquals", (current,)),
        "the next one alone": Way("StringEquals", (upcoming or current,)),
        "the one before": Way("StringEquals", (before or current,)),
        "without a condition": Way("nothing"),
        "if it exists": Way("StringEqualsIfExists", kit),
        "by its beginning": Way("StringLike", tuple(f"{it[:20]}*" for it in kit)),
        "but for its last digit": Way("StringLike", tuple(f"{it[:-1]}?" for it in kit)),
        "somebody else's too": Way("StringEquals", (*kit, foreign)),
        "somebody else's alone": Way("StringEquals", (foreign,)),
        "another system's too": Way("StringEquals", (*kit, _OLD_VALUE)),
        "for another account": Way("StringEquals", kit, _SOMEBODY_ELSE),
    }
    if hand == "denied without it":
        return Trust((Way("nothing"),), denies_but=kit)
    if hand == "open under another name":
        return Trust((equals, Way("the session's name")))
    return Trust((ways.get(hand, equals),))
