"""The API server's side of the live page: what one viewer sees, as lines of JSON."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import zmq
import zmq.asyncio

from vllm_dllm.records import ranges
from vllm_dllm.watch.events import Begun, Ended, Event, Message, Overview, Passed, decode
from vllm_dllm.watch.topics import EVENTS


async def watch(addresses: Sequence[str], topics: Sequence[str], text: Callable[[int], str]) -> AsyncIterator[bytes]:
    """The events of `topics` from the engines at `addresses`, and now and then all running requests: a line each;
    `{"ready": true}` when none can be missed.

    Where an event has token ids, its `texts` has those that were not told before, by id.
    """
    socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    viewer = Viewer(topics, text)
    try:
        for topic in (EVENTS, *topics):
            socket.subscribe(topic.encode())
        for address in addresses:
            socket.connect(address)
        for _ in addresses:
            await monitor.recv_multipart()
        yield _line({"ready": True})
        while True:
            message = await socket.recv()
            yield b"".join(map(_line, viewer.shown(decode(message[len(EVENTS) :]))))
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=0)


class Viewer:
    """What one viewer has been told."""

    def __init__(self, topics: Sequence[str], text: Callable[[int], str]):
        self.topics = set(topics)
        self.text = text
        self.told: set[int] = set()  # tokens
        self.overviews: dict[int, Overview] = {}  # by engine: its last one

    def shown(self, message: Message) -> list[dict[str, Any]]:
        """What of a message is for this viewer."""
        found = [
            with_texts({"id": event.id, **_event(event)}, self.told, self.text)
            for event in message.events
            if not self.topics.isdisjoint(event.topics)
        ]
        if message.overview is not None:
            self.overviews[message.engine] = message.overview
            all_of_them = self.overviews.values()
            found.append(
                {
                    "running": [line for overview in all_of_them for line in overview.running],
                    "waiting": sum(overview.waiting for overview in all_of_them),
                }
            )
        return found


def with_texts(event: dict[str, Any], told: set[int], text: Callable[[int], str]) -> dict[str, Any]:
    """The event with the texts of its tokens that are not in `told`, and from now on are."""
    new = {token for key in ("tokens", "put", "output_ids") for token in event.get(key, ())} - told
    told |= new
    return event | {"texts": {token: text(token) for token in new}} if new else event


def _event(event: Event) -> dict[str, Any]:
    """As the page reads it."""
    if isinstance(event, Ended):
        return {"ended": event.reason}
    state = msgspec.structs.asdict(event.state) | {"pages": event.state.pages.decode()}
    if isinstance(event, Passed):
        return state | {
            "pass": event.number,
            "existed": event.existed,
            "computed": ranges(np.frombuffer(event.computed, np.int64)),
            "unmasked": np.frombuffer(event.unmasked, np.int64).tolist(),
            "put": np.frombuffer(event.put, np.int32).tolist(),
            "refreshed": event.refreshed,
        }
    assert isinstance(event, Begun)
    return state | {
        "cache": event.cache,
        "rule": event.rule,
        "tokens": np.frombuffer(event.tokens, np.int32).tolist(),
        "given": ranges(np.flatnonzero(np.frombuffer(event.given, bool))),
        "unmasked_in": np.frombuffer(event.unmasked_in, np.int32).tolist(),
        "prompt_len": event.prompt_len,
        "response_end": event.response_end,
        "decoded_end": event.decoded_end,
        "page_size": event.page_size,
    }


def _line(event: dict[str, Any]) -> bytes:
    return msgspec.json.encode(event) + b"\n"
