"""Compare texts with many IAM patterns at once, in a time that no pattern can make long.

The patterns are one automaton whose states are the bits of an integer, one for each character of a
pattern. A character of a text moves all states by four operations on that integer.
"""

from collections import defaultdict
from collections.abc import Iterable

_HEAD = 5  # colons before the last part of an ARN


class Globs:
    """Patterns of `*` and `?`, each compiled once.

    `patterns`: each with whether it is an ARN's. ARNs are compared part by part: a wildcard does
    not reach across a colon before the last part.
    """

    def __init__(self, patterns: Iterable[tuple[str, bool]]) -> None:
        self.accepting: dict[
            tuple[str, bool], int
        ] = {}  # the bit of each pattern in the result of `matching`
        self._start = self._stay = self._any = self._stay_at_colon = self._any_at_colon = 0
        # The states that advance on this character
        self._next: defaultdict[str, int] = defaultdict(int)
        offset = 0
        for pattern in dict.fromkeys(patterns):
            offset = self._add(*pattern, offset)
            self.accepting[pattern] = 1 << offset
            offset += 1
        self._all = sum(self.accepting.values())
        self._moves = {character: bits | self._any for character, bits in self._next.items()}
        self._moves[":"] = self._next.get(":", 0) | self._any_at_colon

    # as in `patterns`
    def _add(self, pattern: str, is_arn: bool, offset: int) -> int:  # noqa: FBT001
        """Add a pattern's states from this bit on, and return the bit of its last state."""
        self._start |= 1 << offset
        colons = 0
        for character in pattern:
            bit = 1 << offset
            crosses = not is_arn or colons >= _HEAD
            if character == "*":
                self._stay |= bit
                self._stay_at_colon |= bit if crosses else 0
                continue
            if character == "?":
                self._any |= bit
                self._any_at_colon |= bit if crosses else 0
            else:
                self._next[character] |= bit
                colons += character == ":"
            offset += 1
        return offset

    def matching(self, text: str) -> int:
        """Return the bits of the patterns that match the whole text."""
        states, move = self._start, self._moves.get
        for character in text:
            stay = self._stay_at_colon if character == ":" else self._stay
            states = (states & move(character, self._any)) << 1 | states & stay
            if not states:
                return 0
        return states & self._all
