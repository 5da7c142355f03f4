"""What a process itself has learnt about tokens: enough to refuse a replay without asking anybody."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["KnownTokens"]


class KnownTokens:
    """The fewest uses that tokens are known to have. Bounded: who was heard of longest ago is forgotten first."""

    __slots__ = ("_entries", "_uses")

    def __init__(self, entries: int) -> None:
        """Know nothing.

        Args:
            entries: the most tokens remembered.
        """
        self._entries = entries
        self._uses: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many tokens are remembered."""
        return len(self._uses)

    def uses(self, token_id: bytes) -> int:
        """Return how often a token was used at least; 0 if nothing is known."""
        found = self._uses.get(token_id, 0)
        if found:
            self._uses.move_to_end(token_id)
        return found

    def note(self, token_id: bytes, uses: int) -> None:
        """Remember that a token has at least so many uses."""
        self._uses[token_id] = max(uses, self._uses.get(token_id, 0))
        self._uses.move_to_end(token_id)
        if len(self._uses) > self._entries:
            self._uses.popitem(last=False)
