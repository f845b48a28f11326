"""Room for the schedules of steps with more lines of attention than there are requests."""

from collections.abc import Iterable

from vllm.v1.worker.utils import AttentionGroup


def make_room(groups: Iterable[Iterable[AttentionGroup]], lines: int) -> None:
    """FlashAttention 3's builder copies each step's schedule into a buffer that graphs read: a number, and up to four for
    each line, their count rounded up to a multiple of four. vLLM makes it for as many lines as there are requests, or
    tokens in a graph."""
    size = 1 + 4 * (-(-lines // 4) * 4)
    for group in groups:
        for part in group:
            builder = part.get_metadata_builder(0)
            kept = getattr(builder, "scheduler_metadata", None)
            if kept is not None and len(kept) < size:
                builder.scheduler_metadata = kept.new_zeros(size)
