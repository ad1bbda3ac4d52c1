"""Match texts against many IAM patterns at once, without backtracking.

All patterns form one automaton. Each character of a pattern is a state, and each state is one bit
of an integer. Each character of a text advances all states with four operations on that integer.
"""

from collections import defaultdict
from collections.abc import Iterable

_HEAD = 5  # colons before the last part of an ARN


class Globs:
    """Compiled patterns with the wildcards `*` and `?`.

    `patterns`: pairs of a pattern and whether it is for ARNs. ARNs are compared part by part, so a
    wildcard matches no colon before the last part.
    """

    def __init__(self, patterns: Iterable[tuple[str, bool]]) -> None:
        self.accepting: dict[
            tuple[str, bool], int
        ] = {}  # the bit of each pattern in the result of `matching`
        self._start = self._stay = self._any = self._stay_at_colon = self._any_at_colon = 0
        # For each character, the bits of the states that advance on it
        self._next: defaultdict[str, int] = defaultdict(int)
        offset = 0
        for pattern in dict.fromkeys(patterns):
            offset = self._add(*pattern, offset)
            self.accepting[pattern] = 1 << offset
            offset += 1
        self._all = sum(self.accepting.values())
        self._moves = {character: bits | self._any for character, bits in self._next.items()}
        self._moves[":"] = self._next.get(":", 0) | self._any_at_colon

    # The first two arguments are one item of `patterns`.
    def _add(self, pattern: str, is_arn: bool, offset: int) -> int:  # noqa: FBT001
        """Add a pattern's states from the bit `offset` on, and return the bit of its last state."""
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
