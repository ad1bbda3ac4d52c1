"""As test_schemathesis.py, with many requests for each operation and those at every bound that
the document gives.
"""

import pytest

from tests.api.kit.test_schemathesis import (
    admin,
    assert_as_documented,
    described,
    home,
    inhabited,
    unhurried,
)

__all__ = ["admin", "home", "inhabited"]  # fixtures


@pytest.mark.soak
@described(50, every_boundary=True).parametrize()
@unhurried
def test_the_api_is_as_its_document_says_at_length(case, home):
    assert_as_documented(case, home)
