"""The scheduler's side of the live page: what happens to canvases, told to whoever looks."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import zmq

from vllm_dllm.decoding import Decoding, Finished
from vllm_dllm.passes import Pass
from vllm_dllm.running import Running, Task
from vllm_dllm.scoring import Scoring
from vllm_dllm.watch.events import (
    ABSENT,
    FRESH,
    PARTLY,
    STALE,
    Begun,
    Ended,
    Event,
    Line,
    Message,
    Overview,
    Passed,
    State,
    encode,
)
from vllm_dllm.watch.topics import EVENTS, FIRST, REQUEST

SHOWN = 4  # requests that FIRST shows at a time
PAUSE = 0.05  # seconds from one message to the next: to send one takes longer than to make it
OVERVIEW_PAUSE = 0.25  # seconds from one overview to the next


@dataclass
class Followed:
    """A request that somebody looks at."""

    topics: set[str]  # those that show it, and whose viewers know its canvas
    refreshed: dict[str, list[int]] = field(default_factory=dict)  # pages of its pass in flight, by reason


class Feed:
    """Gathers events, and publishes what has gathered some twenty times a second. What nobody looks at is not made.

    A request is followed from where it is when somebody begins to look. The event that begins it is all there is to
    know of its canvas; those of its passes say what they changed, and the last one how it ended.
    """

    def __init__(self, address: str, engine: int = 0):
        """`address`: of ZeroMQ; bound. `engine`: its number among those of the machine."""
        self.engine = engine
        self.socket = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # a second viewer of a topic is told, too
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(address)
        self.topics: set[str] = set()  # that have viewers
        self.asked: set[str] = set()  # the requests for which it is known which of the topics show them
        self.followed: dict[str, Followed] = {}
        self.first: set[str] = set()  # the requests that FIRST shows
        self.events: list[Event] = []  # since the last message
        self.next_message = self.next_overview = 0.0

    def listen(self) -> None:
        """Take note of who looks at what. Called before each step."""
        while self.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            message = self.socket.recv()
            topic = message[1:].decode(errors="replace")
            if message[0]:
                self.topics.add(topic)
            else:
                self.topics.discard(topic)
            self._begin_anew(topic)
        if not self.topics:
            self.events.clear()

    def _begin_anew(self, topic: str) -> None:
        """Nothing that the topic shows is known to its viewers."""
        self.asked.clear()
        self.next_message = self.next_overview = 0.0
        for followed in self.followed.values():
            followed.topics.discard(topic)
        self.followed = {req_id: followed for req_id, followed in self.followed.items() if followed.topics}
        if topic == FIRST:
            self.first.clear()

    def sent(self, req_id: str, decoding: Task) -> None:
        """A pass goes out. Topics that show the request for the first time get its whole canvas."""
        if not self.topics or isinstance(decoding, Scoring):
            return
        if req_id not in self.asked or (len(self.first) < SHOWN and FIRST in self.topics):
            self._ask(req_id, decoding)
        followed = self.followed.get(req_id)
        if followed is not None:
            followed.refreshed = _reasons(decoding)

    def _ask(self, req_id: str, decoding: Decoding) -> None:
        """Which topics show this request."""
        self.asked.add(req_id)
        topics = {t for t in self.topics if t.startswith(REQUEST) and req_id.startswith(t[len(REQUEST) :])}
        if FIRST in self.topics and (req_id in self.first or len(self.first) < SHOWN):
            self.first.add(req_id)
            topics.add(FIRST)
        followed = self.followed.get(req_id)
        new = topics - followed.topics if followed else topics
        if new:
            self.followed[req_id] = Followed(topics)
            self.events.append(_begun(req_id, sorted(new), decoding))

    def passed(self, req_id: str, decoding: Task, done: Pass, finished: Finished) -> None:
        """A pass has been finished."""
        followed = self.followed.get(req_id)
        if followed is None:
            return
        assert isinstance(decoding, Decoding)
        at = finished.unmasked
        self.events.append(
            Passed(
                id=req_id,
                topics=list(followed.topics),
                number=done.number,
                existed=done.end,
                computed=done.queries.tobytes(),
                unmasked=at.tobytes(),
                put=decoding.canvas.tokens[at].tobytes(),
                refreshed=followed.refreshed,
                state=_state(decoding),
            )
        )

    def ended(self, req_id: str, reason: str) -> None:
        self.asked.discard(req_id)
        self.first.discard(req_id)
        followed = self.followed.pop(req_id, None)
        if followed is not None:
            self.events.append(Ended(req_id, list(followed.topics), reason))

    def tell(self, running: Mapping[str, Running], waiting: int) -> None:
        """Send what there is, when it is time to: now and then, and when no request runs any more."""
        if not self.topics:
            return
        now = time.monotonic()
        if running and now < self.next_message:
            return
        overview = None
        if not running or now >= self.next_overview:
            self.next_overview = now + OVERVIEW_PAUSE
            overview = _overview(running, waiting)
        if self.events or overview:
            self.next_message = now + PAUSE
            message = encode(Message(self.engine, self.events, overview))
            self.socket.send(EVENTS.encode() + message, zmq.NOBLOCK)
            self.events = []

    def close(self) -> None:
        self.socket.close()


def _overview(running: Mapping[str, Running], waiting: int) -> Overview:
    found = [(req_id, r.decoding) for req_id, r in running.items()]
    lines = [
        Line(req_id, d.policy.name, d.canvas.passes, d.canvas.final, d.canvas.gen_length)
        for req_id, d in found
        if isinstance(d, Decoding)
    ]
    return Overview(lines, waiting)


def _begun(req_id: str, topics: list[str], decoding: Decoding) -> Begun:
    """All there is to know of a canvas now."""
    canvas = decoding.canvas
    return Begun(
        id=req_id,
        topics=topics,
        cache=decoding.policy.name,
        rule=_rule(decoding),
        tokens=canvas.tokens.tobytes(),
        given=canvas.given.tobytes(),
        unmasked_in=canvas.unmasked_in.tobytes(),
        prompt_len=canvas.prompt_len,
        response_end=canvas.response_end,
        decoded_end=canvas.decoded_end,
        page_size=decoding.pages.page_size,
        state=_state(decoding),
    )


def _rule(decoding: Decoding) -> str:
    name, value = decoding.rule.option.name, decoding.settings.rule_value
    return name if value is None else f"{name} {value}"


def _state(decoding: Decoding) -> State:
    canvas, pages = decoding.canvas, decoding.pages
    states = np.full(pages.num_pages, FRESH, np.uint8)
    states[pages.partly] = PARTLY
    states[pages.stale] = STALE
    states[pages.sizes == 0] = ABSENT
    return State(canvas.passes, canvas.end, canvas.dropped_from, canvas.block, states.tobytes())


def _reasons(decoding: Decoding) -> dict[str, list[int]]:
    """The stale pages, by what they were marked for."""
    pages = decoding.pages
    if not pages.num_stale:
        return {}
    found: dict[str, list[int]] = {}
    for page in np.flatnonzero(pages.stale).tolist():
        found.setdefault(pages.reason(page), []).append(page)
    return found
