"""What a request's passes did, for whoever reads it: the trace."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PassRecord:
    """One pass. Made only for a request whose record somebody reads."""

    query_tokens: int  # positions that entered the first layer
    full: bool  # whether they were the whole canvas
    unmasked: list[int]  # response positions unmasked
    stale_pages: int  # pages recomputed because they were marked stale
    signals: dict[str, Any] = field(default_factory=dict)  # what the policy shows of the pass

    def columns(self) -> dict[str, Any]:
        """By the names that the trace has for them."""
        own = {k: getattr(self, k) for k in ("query_tokens", "full", "unmasked", "stale_pages")}
        return own | self.signals
