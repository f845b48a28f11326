"""What the live page costs: a step's time in the scheduler's feed, with nobody looking and with a viewer.

    python benchmarks/watch.py [--model checkpoints/tiny-llada] [--requests 64]

One engine, three runs of the same requests: without a viewer; with one who sees the list of requests and the first
four canvases; and with one who follows eight more. The feed's own calls are timed inside the engine, and their share is
of all that its thread does, the model's pass included; both in the thread's own time, so that other work on the machine
matters little.
"""

import argparse
import os
import time
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler is to be looked at from here

import zmq
from vllm import LLM, SamplingParams

from vllm_dllm.watch.feed import Feed
from vllm_dllm.watch.topics import EVENTS, FIRST, REQUEST

CALLS = ("listen", "sent", "passed", "ended", "tell")


class Clock:
    """Adds up the time that a feed's methods take, less what it takes to look at the clock."""

    def __init__(self, feed: Feed):
        self.seconds = 0.0
        self.own = 0.0  # seconds a call
        for name in CALLS:
            setattr(feed, name, self.timed(getattr(feed, name)))
        nothing = self.timed(lambda: None)
        for _ in range(10_000):
            nothing()
        self.own = self.seconds / 10_000

    def timed(self, method: Any) -> Any:
        def call(*args: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*args)
            finally:
                self.seconds += time.thread_time() - began - self.own

        return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="checkpoints/tiny-llada")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    llm = LLM(options.model, max_model_len=1024, additional_config={"dllm_cache": "dual", "dllm_watch": True})
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    clock = Clock(scheduler.listeners.feed)
    params = SamplingParams(temperature=0, max_tokens=options.max_tokens, ignore_eos=True)
    prompts = [f"<|startoftext|><|user|>count {i} by 4 x6<|assistant|>" for i in range(options.requests)]
    print("| who looks | microseconds a step | of a step |\n| --- | ---: | ---: |")
    for who, topics in (
        ("nobody", []),
        ("one, at the list and the first four", [EVENTS, FIRST]),
        ("one, at eight more", [EVENTS, FIRST, *(f"{REQUEST}{i}-" for i in range(20, 28))]),
    ):
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.connect(scheduler.listeners.feed.socket.getsockopt(zmq.LAST_ENDPOINT))
        for topic in topics:
            socket.subscribe(topic.encode())
        time.sleep(0.5)  # until the feed has been told
        for warm in (True, False):
            steps, clock.seconds, began = scheduler.current_step, 0.0, time.thread_time()
            llm.generate(prompts, params, use_tqdm=False)
            if not warm:
                steps, seconds = scheduler.current_step - steps, time.thread_time() - began
                print(f"| {who} | {1e6 * clock.seconds / steps:.0f} | {clock.seconds / seconds:.2%} |")
        socket.close(linger=0)


if __name__ == "__main__":
    main()
