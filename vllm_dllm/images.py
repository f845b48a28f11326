"""The images in running requests' prompts: whose embeddings the worker keeps, and which positions are theirs.

An image is embedded once, in the step of its first request's first pass. Every pass that computes its positions needs
the embeddings anew, so they are held as long as a request with it runs; afterwards they stay until others need the room.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.request import Request

from vllm_dllm.messages import Placed
from vllm_dllm.passes import Pass


class Images:
    """The scheduler's side of it; `worker/images.py` is the other one.

    `manager` is vLLM's, which counts: who holds what, and what goes when room is needed. It has room for as many
    embeddings as there are KV slots, so that an image whose request has its pages has room here, too.
    """

    def __init__(self, manager: EncoderCacheManager):
        self.manager = manager
        self.due: dict[str, Any] = {}  # what the worker is to embed before the next step's pass: vLLM's items by key
        self.weights: dict[str, int] = {}  # by key: how often the weights had been changed when it was embedded

    def name(self, request: Request) -> None:
        """Give a new request's images their keys: whatever a client calls an image (`uuid`), one of another size is
        another one."""
        for feature in request.mm_features:
            feature.identifier = f"{feature.identifier} {feature.mm_position.length}"

    def admit(self, request: Request) -> None:
        """Hold the images of a request that has its pages from now on."""
        manager = self.manager
        there = [manager.check_and_update_cache(request, i) for i in range(len(request.mm_features))]
        for i, feature in enumerate(request.mm_features):  # once all that is there is held, so that none of it goes
            if not there[i] and not manager.check_and_update_cache(request, i):
                assert manager.can_allocate(request, i, manager.cache_size, 0), "more embeddings than KV slots"
                manager.allocate(request, i)
                self.due[feature.identifier] = feature.data

    def take(self) -> tuple[dict[str, Any], list[str]]:
        """What a step's worker is to embed first, and what it is to forget before that."""
        due, self.due = self.due, {}
        gone = self.manager.get_freed_mm_hashes()
        for key in gone:
            self.weights.pop(key, None)
        return due, gone

    def came(self, keys: Iterable[str], weights: int) -> None:
        """A step is back that embedded them."""
        self.weights |= dict.fromkeys(keys, weights)

    def outdated(self, request: Request, weights: int) -> bool:
        """Whether other weights than these have made some of a request's embeddings. Then they are due once more."""
        old = [f for f in request.mm_features if self.weights.get(f.identifier, weights) != weights]
        self.due |= {feature.identifier: feature.data for feature in old}
        return bool(old)

    def reset(self, running: Iterable[Request]) -> None:
        """The worker has forgotten all of them."""
        self.manager.reset()
        self.due, self.weights = {}, {}
        for request in running:
            self.admit(request)


def placed(request: Request, planned: Pass, first: int) -> list[Placed]:
    """Which of a pass's query positions are images', `first` being the place of its own first one in the batch."""
    found = []
    for feature in request.mm_features:
        start, length = feature.mm_position.offset, feature.mm_position.length
        low, high = planned.queries.searchsorted([start, start + length]).tolist()
        if low < high:
            places = np.arange(first + low, first + high, dtype=np.int32)
            found.append(Placed(feature.identifier, places, planned.queries[low:high] - start))
    return found
