"""A customer writes the trust policy, and our processes read it: no policy of AWS's greatest size
takes long.

The calls of functions are counted, as time depends on the machine. With one call for each pair of a
value and a pattern there would be hundreds of thousands of them. A reading that stays within these
takes some 15 ms. A count does not see the time inside one call, where a regular expression may
backtrack: a timer of the CPU's time ends such a call.
"""

import gc
import itertools
import json
import signal
import string
import sys
from contextlib import contextmanager

import pytest

from app.ids import Broker, new_external_id
from app.proofs.trust_policy import read

MOST = 8_192  # characters of a trust policy, without white space
CALLS = 8 * MOST
CPU_SECONDS = 0.2  # a quadratic match of 8,192 characters takes more
BROKER = Broker.parse("arn:aws:iam::111122223333:role/DeputyBroker")
OWN = new_external_id()
KEY, ARN, USER_ID = "sts:ExternalId", "aws:PrincipalArn", "aws:userid"
DEMANDED = {
    "Effect": "Allow",
    "Principal": {"AWS": "111122223333"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {KEY: OWN}},
}
OPEN = {**DEMANDED, "Condition": {"StringEquals": {"sts:RoleSessionName": "x"}}}
PAIRS = [
    "".join(pair) for pair in itertools.product(string.ascii_letters + string.digits, repeat=2)
]
BETWEEN, AROUND = [f"{a}*{b}" for a, b in PAIRS], [f"*{pair}*" for pair in PAIRS]


def spellings(text):
    letters = [(it.lower(), it.upper()) if it.isalpha() else (it,) for it in text]
    return ["".join(it) for it in itertools.islice(itertools.product(*letters), 2_000)]


LIKE, KEYS = spellings("StringLike"), spellings(KEY)


def deny(**condition):
    return {"Effect": "Deny", "Principal": "*", "Action": "sts:*", "Condition": condition}


def each(make, values):
    return [make(value) for value in values]


# Each takes the number of values.
HOSTILE = {
    "other-external-ids": lambda n: [{**DEMANDED, "Condition": {"StringEquals": {KEY: PAIRS[:n]}}}],
    "other-external-id-for-each-statement": lambda n: each(
        lambda value: {**DEMANDED, "Condition": {"StringEquals": {KEY: value}}}, PAIRS[:n]
    ),
    "patterns-and-arns": lambda n: [deny(StringNotLike={ARN: BETWEEN[:n]})],
    "patterns-and-ids": lambda n: [
        deny(StringNotLike={KEY: AROUND[:n]}, StringEquals={KEY: PAIRS[:n]})
    ],
    "numbers": lambda n: [
        deny(StringEquals={KEY: list(range(10, n + 10))}, StringLike={KEY: AROUND[: n // 4]})
    ],
    "tiny-statements": lambda n: [{"Effect": "Deny"}] * n,
    "open-statements": lambda n: [{"Effect": "Allow", "Principal": "*", "Action": "*"}] * n,
    "statement-for-each-id": lambda n: each(lambda it: deny(StringEquals={KEY: it}), PAIRS[:n]),
    "statement-for-each-pattern": lambda n: [
        *each(lambda it: deny(StringLike={KEY: it}), AROUND[:n]),
        deny(StringEquals={KEY: PAIRS[: n * 9]}),
    ],
    "operators": lambda n: [
        deny(**{it: {KEY: AROUND[0]} for it in LIKE[:n]}, StringEquals={KEY: PAIRS[: n * 9]})
    ],
    "keys": lambda n: [
        deny(
            StringLike=dict(zip(KEYS[:n], AROUND, strict=False)), StringEquals={KEY: PAIRS[: n * 9]}
        )
    ],
    "short-keys": lambda n: [deny(StringLike=dict.fromkeys(PAIRS[:n], 1))],
    "any-case": lambda n: [
        *each(lambda it: deny(StringEqualsIgnoreCase={it: "ab"}), KEYS[:n]),
        deny(StringEquals={KEY: PAIRS[: n * 9]}),
    ],
    "long-pattern": lambda n: [
        deny(StringLike={KEY: "*a" * n + "b"}, StringEquals={KEY: "a" * min(n, 1_224)})
    ],
    "question-marks": lambda n: [
        deny(StringLike={KEY: [f"*{'?' * it}" for it in range(n)]}, StringEquals={KEY: PAIRS[:n]})
    ],
    "arns": lambda n: [deny(ArnLike={ARN: [f"::::*:{it}" for it in AROUND[:n]]})],
    "arns-of-many-statements": lambda n: (
        [{**DEMANDED, "Condition": {"StringLike": {ARN: AROUND[:n]}, "StringEquals": {KEY: OWN}}}]
        * n
    ),
    "principals": lambda n: [{**DEMANDED, "Principal": {"AWS": PAIRS[:n]}}],
    "other-principals": lambda n: [
        {"Effect": "Deny", "NotPrincipal": {"AWS": PAIRS[:n]}, "Action": "*"}
    ],
    "actions": lambda n: [{"Effect": "Deny", "Principal": "*", "NotAction": BETWEEN[:n]}],
    "one-action": lambda n: [{"Effect": "Deny", "Principal": "*", "Action": "s*" * n + "x"}],
    "unicode": lambda n: [deny(StringLike={ARN: [f"*{chr(0x100 + it)}*" for it in range(n)]})],
    "white-space": lambda n: [deny(StringLike={ARN: [f"*{' ' * 15}{it}*" for it in PAIRS[:n]]})],
    "nested": lambda n: [deny(StringLike={KEY: [[["a"]]] * n})],
    "user-id": lambda n: [deny(StringLike={USER_ID: "*" * n + ":x:"})],
    "user-id-of-a-role": lambda n: [deny(StringLike={USER_ID: "AROA" + "*?" * n + "x:"})],
    "stars": lambda n: [deny(StringLike={KEY: "*" * n + "x"}, StringEquals={KEY: PAIRS[:n]})],
    "dates": lambda n: [
        {**OPEN, "Condition": {"DateLessThan": {"aws:CurrentTime": list(range(n))}}}
    ],
}


def size(statements):
    """As AWS counts."""
    return len("".join(json.dumps(statements, separators=(",", ":"), ensure_ascii=False).split()))


def greatest(make):
    """The statements with the greatest number of values that a policy has room for."""

    def fits(number):
        return number <= MOST and size([DEMANDED, *make(number), OPEN]) <= MOST - 50

    step = 1
    while fits(2 * step):
        step *= 2
    number = step
    while step := step // 2:
        number += step * fits(number + step)
    return [DEMANDED, *make(number), OPEN]


def calls_of(function):
    number = 0

    def count(_frame, event, _of):
        nonlocal number
        number += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        return function(), number
    finally:
        sys.setprofile(None)


@contextmanager
def cpu_limit():
    def end(*_):
        raise AssertionError(f"More than {CPU_SECONDS} s of CPU.")

    before = signal.signal(signal.SIGVTALRM, end)
    gc.disable()  # else this may pay for what all tests before it have left behind
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_policy_that_means_to_be_slow_is_read_at_once_and_hides_nothing(name):
    statements = greatest(HOSTILE[name])
    retired = {new_external_id() for _ in range(100)}
    with cpu_limit():
        read({"Statement": statements}, BROKER, "444455556666", {OWN}, retired)
    found, calls = calls_of(
        lambda: read({"Statement": statements}, BROKER, "444455556666", {OWN}, retired)
    )
    assert calls < CALLS, calls
    assert len(statements) in {*found.open, *found.unclear}, (
        "the last statement is open, unless a Deny may close it"
    )
