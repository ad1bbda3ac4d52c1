"""Name what is weak about an External ID that another system made.

In Deputy a weak External ID is no risk, because Deputy sends it only for its own tenant. But the
vendor's other system may let customers enter External IDs. A customer could then guess another's.
So customers with weak External IDs should move first.
"""

import re
from collections.abc import Iterator

from app.imports.import_file import ImportRow
from app.store.models import folded

_SHORT = 16  # characters
_FEW = 5  # different characters
_WORD_MIN = 3  # characters; shorter names, references and account ids are not looked for
_APART = 1000  # two neighbours of a sequence differ by at most this
_NUMBER = re.compile("[0-9]{1,18}")


def weaknesses(row: ImportRow, before: str) -> Iterator[str]:
    """Yield each weakness of a row's External ID. `before`: the previous one in the file."""
    value = row.external_id
    if len(value) < _SHORT:
        yield f"shorter than {_SHORT} characters"
    plain = _letters(value)
    _, _, account = row.role_arn.partition("::")
    for part, words in (
        (_letters(row.name), "contains the customer's name"),
        (_letters(row.reference), "contains the reference"),
        (account[:12], "contains the account id"),
    ):
        if len(part) >= _WORD_MIN and part in plain:
            yield words
    if _are_neighbours(value, before):
        yield "one of a sequence"
    if len({*value}) < _FEW or value.isdigit():
        yield "of one shape"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, folded(text)))


def _are_neighbours(value: str, before: str) -> bool:
    """Return whether two External IDs differ only in one number, and by at most _APART."""
    if value == before or _NUMBER.sub("#", value) != _NUMBER.sub("#", before):
        return False
    pairs = zip(_NUMBER.findall(value), _NUMBER.findall(before), strict=True)
    apart = [abs(int(number) - int(other)) for number, other in pairs if number != other]
    return len(apart) == 1 and apart[0] <= _APART
