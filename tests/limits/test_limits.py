"""The table of limits: what counts takes its number from a setting, and its refusal from here."""

import pytest

from app.limits import limits
from app.settings.setting_types import Limit
from tests.conftest import make_config
from tests.support.databases import NOWHERE

LIMITS = [limit for limit in vars(limits).values() if isinstance(limit, Limit)]
COUNTED_BY_NAME = [limit for limit in LIMITS if limit.counted in {"cache", "database"}]


def test_a_limit_that_is_counted_by_name_has_a_short_name_of_its_own():
    names = [limit.name for limit in COUNTED_BY_NAME]
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 16, "as long as the column quota_uses.name"


def test_each_setting_that_a_limit_names_exists_and_half_of_the_sts_budget_is_for_routine_proofs():
    config = make_config(NOWHERE, sts_budget=11, link_rate=7)
    amounts = {limit.name: limit.with_setting(config).amount for limit in LIMITS}
    assert (amounts["paste"], amounts["again"], amounts["rotation"]) == (7, 7, 20)
    assert (amounts["sts"], amounts["routine"]) == (11, 5)


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [
        (limits.PAGE, "Too many requests for this page: at most 5 per second."),
        (limits.REQUESTS, "Too many requests with this tenant's API keys: at most 2 at once."),
        (
            limits.KEYS._replace(most=1_000),
            "Too many live API keys of this tenant: at most 1,000; revoke one first.",
        ),
    ],
)
def test_a_refusal_says_what_is_too_much_and_how_much_there_may_be(limit, refusal):
    error = limit.refuse(1.2)
    assert (error.detail, error.retry_after) == (refusal, 2)
    assert limit.refuse(0.001).retry_after == 1
