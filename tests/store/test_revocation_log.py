"""A process knows what was revoked since it read something, or knows that it does not know."""

from app.ids import new_id
from app.store.revocation import MOST_REVOKED_ROWS, RevocationLog

KEY, TENANT, OTHER = new_id(), new_id(), new_id()


def valid_at(history, *counters):
    """Until when that is valid which was read from a key and its tenant at these counters."""
    return [history.still_valid_at(counter, (KEY, TENANT)) for counter in counters]


def test_what_was_read_stays_valid_while_other_rows_are_revoked():
    history = RevocationLog(5).advanced_to(6, [(6, OTHER)])
    history = history.advanced_to(8, [(7, new_id()), (8, OTHER)])
    assert valid_at(history, 5) == [8]
    assert history.still_valid_at(5, (KEY, None)) == 8, "a key that is bound to no tenant"


def test_what_was_read_before_its_row_changed_is_not_valid():
    for changed in (KEY, TENANT):
        history = RevocationLog(5).advanced_to(7, [(7, changed), (6, changed), (6, OTHER)])
        assert valid_at(history, 5, 6, 7, 8) == [None, None, 7, 8]
        assert valid_at(history.advanced_to(8, [(8, OTHER)]), 6) == [None]


def test_a_counter_that_nothing_is_known_of_ends_all_that_was_read_before():
    """It was moved by hand, or a table was emptied; or it is so long ago that the rows are gone."""
    for changes in ([], [(7, OTHER)], [(6, OTHER), (6, KEY)]):
        history = RevocationLog(5).advanced_to(7, changes)
        assert valid_at(history, 5, 6, 7) == [None, None, 7]
        assert valid_at(history.advanced_to(8, [(8, OTHER)]), 7) == [8]
        assert history.rollbacks == 0


def test_more_changes_than_are_remembered_end_all_that_was_read_before():
    at_once = [(1, new_id()) for _ in range(MOST_REVOKED_ROWS)]
    assert valid_at(RevocationLog().advanced_to(1, at_once), 0) == [None]
    history = RevocationLog()
    for counter in range(1, MOST_REVOKED_ROWS + 1):
        history = history.advanced_to(counter, [(counter, new_id())])
        assert valid_at(history, 0) == [counter if counter < MOST_REVOKED_ROWS else None]


def test_a_counter_that_goes_back_is_another_world():
    history = RevocationLog(5).advanced_to(4, [])
    assert history.rollbacks == 1
    assert history.advanced_to(6, [(5, OTHER), (6, OTHER)]).rollbacks == 1
