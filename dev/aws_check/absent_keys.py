"""Conditions whose result the check asks STS for, with the sandbox's result.

Each is the condition of a Deny in a trust policy: STS refuses a call if the condition holds. Their
keys are absent from the request, except `aws:ResourceAccount`.
"""

Condition = dict[str, dict[str, str]]

HOLDS, FAILS = "holds", "does not hold"
_KEY = "sts:ExternalId"  # the check sends none
_ARN, _DATE = "arn:aws:iam::111122223333:role/x", "2030-01-01T00:00:00Z"
_ORDER = ("LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
_OPERATORS = {
    **dict.fromkeys(("StringEquals", "StringNotEquals", "StringLike", "StringNotLike"), "x"),
    **dict.fromkeys(("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"), "x"),
    **dict.fromkeys(("ArnEquals", "ArnNotEquals", "ArnLike", "ArnNotLike"), _ARN),
    **{f"Numeric{name}": "1" for name in ("Equals", "NotEquals", *_ORDER)},
    **{f"Date{name}": _DATE for name in ("Equals", "NotEquals", *_ORDER)},
    "Bool": "true",
    "IpAddress": "192.0.2.0/24",
    "NotIpAddress": "192.0.2.0/24",
}


def _questions() -> dict[str, tuple[Condition, str]]:
    # AWS's documentation of this one can be read both ways, so it is asked for each operator
    questions: dict[str, tuple[Condition, str]] = {}
    for name, value in _OPERATORS.items():
        questions |= _absent(f"ForAnyValue:{name}IfExists", value, holds=False)
    for name in ("StringEquals", "StringNotEquals"):
        questions |= _absent(name, "x", holds="Not" in name)
        questions |= _absent(f"{name}IfExists", "x", holds=True)
        questions |= _absent(f"ForAllValues:{name}", "x", holds=True)
        questions |= _absent(f"ForAllValues:{name}IfExists", "x", holds=True)
        questions |= _absent(f"ForAnyValue:{name}", "x", holds=False)
    for key, result in (("aws:ResourceAccount", FAILS), ("sts:DurationSeconds", HOLDS)):
        questions[f"{key} is absent from AssumeRole"] = {"Null": {key: "true"}}, result
    return questions


def _absent(operator: str, value: str, *, holds: bool) -> dict[str, tuple[Condition, str]]:
    question = f"{operator} of an absent key"
    return {question: ({operator: {_KEY: value}}, HOLDS if holds else FAILS)}


QUESTIONS = _questions()
