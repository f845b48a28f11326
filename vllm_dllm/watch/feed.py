"""The scheduler's side of the live page: what happens to canvases, told to whoever looks."""

import json
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import zmq

from vllm_dllm.decoding import Decoding, Finished
from vllm_dllm.passes import Pass
from vllm_dllm.records import ranges
from vllm_dllm.scoring import Scoring
from vllm_dllm.watch.topics import FIRST, OVERVIEW, REQUEST

SHOWN = 4  # requests that FIRST shows at a time
PAUSE = 0.25  # seconds from one overview to the next


class Feed:
    """Publishes events as JSON, each under its topic. What nobody has subscribed to is not made.

    A request is followed from where it is when somebody begins to look. The event that begins it (`tokens`) is
    all there is to know of its canvas; those of its passes say what they changed, and the last one how it ended.
    """

    def __init__(self, address: str):
        """`address`: of ZeroMQ; bound."""
        self.socket = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # a second viewer of a topic is told, too
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(address)
        self.first: set[str] = set()  # the requests that FIRST shows
        self.begun: dict[str, set[str]] = {}  # by topic that has viewers: the requests whose canvas they know
        self.stale: dict[str, dict[str, list[int]]] = {}  # by followed request: what its pass in flight refreshes
        self.next_overview = 0.0

    def listen(self) -> None:
        """Take note of who looks at what. Called before each step."""
        while self.socket.poll(0):
            message = self.socket.recv()
            topic = message[1:].decode(errors="replace")
            if message[0]:
                self.begun[topic] = set()
                self.next_overview = 0.0
            else:
                self.begun.pop(topic, None)
        if FIRST not in self.begun:
            self.first.clear()

    def _topics(self, req_id: str) -> list[str]:
        """The topics that show this request."""
        if not self.begun:
            return []
        topics = [t for t in self.begun if t.startswith(REQUEST) and req_id.startswith(t[len(REQUEST) :])]
        if FIRST in self.begun and (req_id in self.first or len(self.first) < SHOWN):
            self.first.add(req_id)
            topics.append(FIRST)
        return topics

    def sent(self, req_id: str, decoding: Decoding | Scoring) -> None:
        """A pass goes out. Topics that show the request for the first time get its whole canvas."""
        if isinstance(decoding, Scoring):
            return
        topics = self._topics(req_id)
        for topic in topics:
            if req_id not in self.begun[topic]:
                self.begun[topic].add(req_id)
                self._publish(topic, req_id, _whole(decoding))
        if topics:
            self.stale[req_id] = _reasons(decoding)

    def passed(self, req_id: str, decoding: Decoding | Scoring, done: Pass, finished: Finished) -> None:
        """A pass has been finished."""
        topics = [topic for topic, known in self.begun.items() if req_id in known]
        if not topics or isinstance(decoding, Scoring):
            return
        at, canvas = finished.unmasked, decoding.canvas
        event = {
            "pass": done.number,
            "existed": done.end,
            "computed": ranges(done.queries),
            "unmasked": at.tolist(),
            "put": canvas.tokens[at].tolist(),
            "refreshed": self.stale.get(req_id, {}),
            **_state(decoding),
        }
        for topic in topics:
            self._publish(topic, req_id, event)

    def wants_overview(self, any_running: bool) -> bool:
        """Whether somebody looks at all requests, and it is time: now and then, and when there are none any more."""
        return OVERVIEW in self.begun and (not any_running or time.monotonic() >= self.next_overview)

    def ended(self, req_id: str, reason: str) -> None:
        self.first.discard(req_id)
        self.stale.pop(req_id, None)
        for topic, known in self.begun.items():
            if req_id in known:
                known.discard(req_id)
                self._publish(topic, req_id, {"ended": reason})

    def overview(self, running: Iterable[tuple[str, Decoding | Scoring]], waiting: int) -> None:
        """All running requests, when it is time to."""
        self.next_overview = time.monotonic() + PAUSE
        lines = [
            [req_id, d.policy.name, d.canvas.passes, d.canvas.final, d.canvas.gen_length]
            for req_id, d in running
            if isinstance(d, Decoding)
        ]
        self._publish(OVERVIEW, "", {"running": lines, "waiting": waiting})

    def _publish(self, topic: str, req_id: str, event: dict[str, Any]) -> None:
        message = json.dumps({"id": req_id, **event}, separators=(",", ":"))
        self.socket.send_multipart([topic.encode(), message.encode()], zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close()


def _whole(decoding: Decoding) -> dict[str, Any]:
    """All there is to know of a canvas now."""
    canvas = decoding.canvas
    return {
        "cache": decoding.policy.name,
        "rule": f"{decoding.rule.option.name} {decoding.settings.rule_value}",
        "tokens": canvas.tokens.tolist(),
        "given": ranges(np.flatnonzero(canvas.given)),
        "unmasked_in": canvas.unmasked_in.tolist(),
        "prompt_len": canvas.prompt_len,
        "response_end": canvas.response_end,
        "page_size": decoding.pages.page_size,
        **_state(decoding),
    }


def _state(decoding: Decoding) -> dict[str, Any]:
    """What may change with each pass: how far the canvas exists, what is active, and each page's state: fresh, partly
    refreshed, stale, or not there yet."""
    canvas, pages = decoding.canvas, decoding.pages
    states = np.full(pages.num_pages, "f")
    states[pages.partly] = "p"
    states[pages.stale] = "s"
    states[pages.sizes == 0] = "."
    return {
        "passes": canvas.passes,
        "end": canvas.end,
        "dropped_from": canvas.dropped_from,
        "block": list(canvas.block),
        "pages": "".join(states),
    }


def _reasons(decoding: Decoding) -> dict[str, list[int]]:
    """The stale pages, by what they were marked for."""
    pages = decoding.pages
    if not pages.num_stale:
        return {}
    found: dict[str, list[int]] = {}
    for page in np.flatnonzero(pages.stale).tolist():
        found.setdefault(pages.reason(page), []).append(page)
    return found
