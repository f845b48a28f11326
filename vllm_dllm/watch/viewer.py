"""The API server's side of the live page: what one viewer sees, as lines of JSON."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import zmq
import zmq.asyncio


async def watch(addresses: Sequence[str], topics: Sequence[str], text: Callable[[int], str]) -> AsyncIterator[str]:
    """The events of `topics` from the engines at `addresses`, a line each; `{"ready": true}` when none can be missed.

    Where an event has token ids, its `texts` has those that were not told before, by id.
    """
    socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    told: set[int] = set()
    try:
        for topic in topics:
            socket.subscribe(topic.encode())
        for address in addresses:
            socket.connect(address)
        for _ in addresses:
            await monitor.recv_multipart()
        yield _line({"ready": True})
        while True:
            name, message = await socket.recv_multipart()
            if name.decode() in topics:  # a subscription takes longer topics, too
                yield _line(with_texts(json.loads(message), told, text))
    finally:
        socket.disable_monitor()
        monitor.close(linger=0)
        socket.close(linger=0)


def with_texts(event: dict[str, Any], told: set[int], text: Callable[[int], str]) -> dict[str, Any]:
    """The event with the texts of its tokens that are not in `told`, and from now on are."""
    new = {token for key in ("tokens", "put", "output_ids") for token in event.get(key, ())} - told
    told |= new
    return event | {"texts": {token: text(token) for token in new}} if new else event


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":")) + "\n"
