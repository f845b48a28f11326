"""The live page's feed and those who look, over a real socket: what is told to whom, and when nothing is."""

import asyncio
import json
from collections.abc import AsyncIterator

import numpy as np
import pytest
from decoding_helpers import MASK

from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.messages import Observation
from vllm_dllm.running import Running
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.watch import feed as feeds
from vllm_dllm.watch.events import Line, Message, Overview
from vllm_dllm.watch.feed import SHOWN, Feed
from vllm_dllm.watch.topics import FIRST, REQUEST
from vllm_dllm.watch.viewer import Viewer, watch

LLADA = ModelTraits(mask_id=MASK, row_shift=0, steps="llada")
GEN = 8


class Engine:
    """A feed and running requests, without a scheduler: a step is one pass of each."""

    def __init__(self, address: str):
        self.address = address
        self.feed = Feed(address)
        self.running: dict[str, Running] = {}

    def add(self, *names: str) -> None:
        settings = resolve({}, {"dllm_cache": "dual", "dllm_tokens_per_step": 2}, LLADA)
        for name in names:
            self.running[name] = Running(Decoding([7] * 4, GEN, settings, Sampling(), LLADA, 4), [])

    def step(self) -> None:
        self.feed.listen()
        for name, running in list(self.running.items()):
            decoding = running.decoding
            planned = decoding.plan()
            self.feed.sent(name, decoding)
            seen = Observation(planned.reads, planned.reads + 10, np.ones(len(planned.reads), np.float32))
            self.feed.passed(name, decoding, planned, decoding.finish(planned, seen))
            if decoding.canvas.done:
                del self.running[name]
                self.feed.ended(name, "stop")
        self.feed.tell(self.running, 0)

    async def look(self, *topics: str) -> AsyncIterator[bytes]:
        """A viewer whom the feed knows of."""
        lines = watch([self.address], topics, str)
        assert json.loads(await anext(lines)) == {"ready": True}
        async with asyncio.timeout(10):
            while not self.feed.topics.issuperset(topics):
                self.feed.listen()
                await asyncio.sleep(0.001)
        return lines


async def told(lines: AsyncIterator[bytes]) -> list[dict]:
    """The events of the next message."""
    async with asyncio.timeout(10):
        return [json.loads(line) for line in (await anext(lines)).splitlines()]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "PAUSE", 0)  # a message for each step
    monkeypatch.setattr(feeds, "OVERVIEW_PAUSE", 1000)
    engine = Engine(f"ipc://{tmp_path}/feed")
    yield engine
    engine.feed.close()


def test_who_is_new_gets_a_canvas_and_then_what_changes_once(engine):
    async def looked() -> None:
        engine.add("a-1", "b-1")
        one = await engine.look(FIRST, REQUEST + "a-")
        engine.step()
        events = await told(one)
        assert [event["id"] for event in events[:-1]] == ["a-1", "a-1", "b-1", "b-1"]
        assert ["tokens" in event for event in events[:-1]] == [True, False] * 2
        assert [name for name, *_ in events[-1]["running"]] == ["a-1", "b-1"]

        two = await engine.look(REQUEST + "b-")
        engine.step()
        assert [(event["id"], event["pass"]) for event in (await told(one))[:-1]] == [("a-1", 1), ("b-1", 1)]
        whole, changed, _ = await told(two)
        assert whole["id"] == changed["id"] == "b-1" and (whole["passes"], changed["pass"]) == (1, 1)
        tokens = np.asarray(whole["tokens"])
        tokens[changed["unmasked"]] = changed["put"]
        assert tokens.tolist() == engine.running["b-1"].decoding.canvas.tokens.tolist()
        assert whole["given"] == [[0, 4]] and whole["pages"] == "fff" and changed["computed"] == [[4, 12]]

    asyncio.run(looked())


def test_the_first_few_are_shown_and_the_next_one_when_one_has_ended(engine):
    async def looked() -> None:
        engine.add("early")
        lines = await engine.look(FIRST)
        engine.step()
        engine.add(*(f"late {i}" for i in range(SHOWN)))
        shown: set[str] = set()
        seen: list[str] = []
        while engine.running:
            for event in await told(lines):
                if "tokens" in event:
                    shown.add(event["id"])
                    seen.append(event["id"])
                if "ended" in event:
                    shown.remove(event["id"])
                assert len(shown) <= SHOWN
            engine.step()
            if "early" in engine.running:
                assert f"late {SHOWN - 1}" not in engine.feed.followed
        assert seen == ["early", *(f"late {i}" for i in range(SHOWN))]

    asyncio.run(looked())


def test_nothing_is_made_where_nobody_looks(engine):
    async def looked() -> None:
        engine.add("a")
        engine.step()
        assert not (engine.feed.events or engine.feed.followed)
        lines = await engine.look(FIRST)
        engine.step()
        assert engine.feed.followed
        await lines.aclose()
        async with asyncio.timeout(10):
            while engine.feed.topics:
                engine.feed.listen()
                await asyncio.sleep(0.001)
        engine.step()
        assert not (engine.feed.events or engine.feed.followed)

    asyncio.run(looked())


def test_the_lists_of_several_engines_are_one():
    viewer = Viewer([], str)
    for engine, waiting in ((0, 2), (1, 3)):
        line = Line(f"r{engine}", "dual", 1, 0, 8)
        (event,) = viewer.shown(Message(engine, [], Overview([line], waiting)))
    assert [line.id for line in event["running"]] == ["r0", "r1"] and event["waiting"] == 5
    (event,) = viewer.shown(Message(0, [], Overview([], 0)))
    assert [line.id for line in event["running"]] == ["r1"]
