"""The server under test, as a client sees it: clients, metrics, trace, log."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from openai import APIError, AsyncOpenAI, OpenAI

GEN_LENGTH = 96  # not the default, to see that it counts
MAX_MODEL_LEN = 512
QUESTION, ANSWER = "count 3 by 4 x6", "3 7 11 15 19 23"
MESSAGES = [{"role": "user", "content": QUESTION}]
# The checkpoint is very sure of most answers. Of this one it is not: nearly each draw gives another text.
UNSURE = "calc 37+38-22+39"
DRAWN = {"temperature": 2.0, "max_tokens": 48}
# Some hundred passes, whatever the model says: long enough to look at while it runs.
LONG = {"max_tokens": 448, "extra_body": {"ignore_eos": True, "vllm_xargs": {"dllm_steps": 448}}}


def streamed(ask: Callable[[], Any], parts: Callable[[Any], Sequence]) -> Any:
    """What `ask` gives once it comes in more than one of its `parts`: those that a client is late for, vLLM joins."""
    for _ in range(5):
        found = ask()
        if len(parts(found)) > 1:
            return found
    raise AssertionError("five times in one part")


def text_prompt(question: str) -> str:
    """What the bundled checkpoint's chat template makes of one user turn."""
    return f"<|startoftext|><|user|>{question}<|assistant|>"


class Server:
    model = "tiny"
    process: subprocess.Popen

    def __init__(self, url: str, log_file: Path, trace_file: Path):
        self.url = url
        self.log_file = log_file
        self.trace_file = trace_file

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=120)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=120)

    def post(self, path: str, body: dict[str, Any], **options: Any) -> httpx.Response:
        """JSON as Python writes it, NaN included, which the openai client refuses to send."""
        content = json.dumps({"model": self.model} | body)
        options = {"headers": {"content-type": "application/json"}, "timeout": 120} | options
        return httpx.post(self.url + path, content=content, **options)

    def ask_long(self, stream: bool) -> APIError | None:
        """The error that a client's long request ends with."""
        with self.client() as client:
            try:
                answer = client.chat.completions.create(model=self.model, messages=MESSAGES, stream=stream, **LONG)
                if stream:
                    for _ in answer:
                        pass
            except APIError as e:
                return e
        return None

    def tokenize(self, prompt: str) -> list[int]:
        return self.post("/tokenize", {"prompt": prompt}).json()["tokens"]

    # ---- what a request left behind ----

    def traces(self, response_id: str, count: int = 1) -> list[dict[str, Any]]:
        """The trace lines of a response's requests, once there are `count` of them; by request id."""

        def found() -> list[dict[str, Any]]:
            lines = map(json.loads, self.trace_file.read_text().splitlines())
            return sorted((x for x in lines if response_id in x["request_id"]), key=lambda x: x["request_id"])

        self.wait(lambda: len(found()) >= count, f"{count} trace lines of {response_id}")
        assert len(found()) == count
        return found()

    def trace(self, response_id: str) -> dict[str, Any]:
        return self.traces(response_id)[0]

    def metric(self, name: str) -> float:
        """The value of one metric, vLLM's unless its name says whose, summed over the engines."""
        full = name if ":" in name else f"vllm:{name}"
        lines = httpx.get(self.url + "/metrics", timeout=30).text.splitlines()
        values = [float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith((f"{full}{{", f"{full} "))]
        if not values:
            raise KeyError(name)
        return sum(values)

    def wait_idle(self) -> None:
        """Wait until no request runs or waits and no KV page is taken."""
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        self.wait(lambda: not any(self.metric(name) for name in names), "an idle engine")

    def wait(self, is_so, what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.05)

    def log_tail(self, lines: int = 80) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
