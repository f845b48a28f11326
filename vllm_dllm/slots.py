"""The KV pages of running requests' canvases, out of vLLM's pool, and those of finished blocks, for others to find.

A request takes the pages of its whole canvas at once and keeps them until it ends. Where blocks are committed (models
whose attention is causal by blocks), vLLM's prefix cache works as it does for its own models, a whole page at a time:

      page of 32                            page of 32
    | t t t t | t t t t | .. | t t t t |  | t t t t | t t m m |    blocks of 4: this request has four pages found
      found: another request's, shared      its own                (at its start) or kept (when it has committed them)

A page's name in that cache is a hash of all tokens up to its end and of the block length. So pages are shared where they
hold whole blocks; others' keys depend on tokens behind the page.
"""

import copy
from collections.abc import Iterable

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.request import Request

from vllm_dllm.settings import Settings


class Slots:
    """The scheduler's pages. `second` canvases are those of guidance."""

    def __init__(self, manager: KVCacheManager, page_size: int):
        self.manager = manager
        self.page_size = page_size
        self.seconds: dict[str, Request] = {}  # what holds the pages of a second canvas, by its request's id

    def name(self, request: Request, settings: Settings) -> None:
        """Called with a new request: under which names its pages are looked for and kept, if they are. One whose prompt is
        scored finds none: it computes all of it, with masks in it."""
        if request.sampling_params.prompt_logprobs is not None or not self.shares(settings):
            request.skip_reading_prefix_cache = True
        if self.shares(settings):
            request.cache_salt = f"{request.cache_salt or ''} dllm_block_length={settings.block_length}"
            request.block_hashes.clear()
            request.update_block_hashes()

    def shares(self, settings: Settings) -> bool:
        """Whether requests with these settings find each other's pages."""
        return self.manager.enable_caching and settings.policy.commits and not self.page_size % settings.block_length

    def take(self, request: Request, length: int, guided: bool, others: bool) -> int | None:
        """Take the pages of a canvas so long, and if it is `guided` of its second one. How many positions at its start are
        computed already; None, and nothing is taken, if there are too few.

        `others`: whether other requests run, for which vLLM leaves some free."""
        manager = self.manager
        found, computed, _ = manager.get_computed_blocks(request)
        room = manager.allocate_slots(
            request,
            length - computed,
            computed,
            found,
            delay_cache_blocks=True,  # they are kept when they have been computed
            has_scheduled_reqs=others,
        )
        if room is None:
            return None
        if guided:
            second = copy.copy(request)
            second.request_id = f"{request.request_id} second canvas"
            if manager.allocate_slots(second, length, has_scheduled_reqs=True) is None:
                manager.free(request)
                return None
            self.seconds[request.request_id] = second
        manager.record_prefix_cache_stats(request, computed)
        return computed

    def free(self) -> int:
        """How many pages no request holds."""
        return self.manager.block_pool.get_num_free_blocks()

    def pages(self, request: Request) -> list[list[int]]:
        """The pages of a request's canvas, and then those of its second one."""
        seconds = [self.seconds[request.request_id]] if request.request_id in self.seconds else []
        return [self.manager.get_block_ids(r.request_id)[0] for r in (request, *seconds)]

    def keep(self, request: Request, settled: int) -> None:
        """All before `settled` will not change any more: have others find the pages whose tokens vLLM knows."""
        self.manager.cache_blocks(request, min(settled, request.num_tokens))

    def forget(self) -> None:
        """Nobody is to find any page any more: the weights are others."""
        self.spoil(block.block_id for block in self.manager.block_pool.blocks if block.block_hash is not None)

    def spoil(self, pages: Iterable[int]) -> None:
        """Nobody is to find these any more."""
        self.manager.evict_blocks(set(pages))

    def holders(self, page: int) -> int:
        """How many running requests hold a page."""
        return self.manager.block_pool.blocks[page].ref_cnt

    def check_integrity(self, held: list[list[list[int]]]) -> None:
        """Raise AssertionError unless the pages that running requests hold, and free ones, are all there are."""
        pool = self.manager.block_pool
        pages = [page for canvases in held for own in canvases for page in own]
        for page in set(pages):
            assert self.holders(page) == pages.count(page), f"page {page} is held more or less often than it is known"
            shared = pages.count(page) > 1 and pool.blocks[page].block_hash is None
            assert not shared or self.manager.enable_caching, "a page belongs to two requests"
        usable = pool.num_gpu_blocks - 1  # vLLM keeps page 0 as its null block
        free = pool.get_num_free_blocks()
        assert free + len(set(pages)) == usable, f"{len(set(pages))} pages held and {free} free, of {usable}"
