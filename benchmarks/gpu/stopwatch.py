"""Where the time of the engine's steps goes, all of it being in this process."""

import time
from collections.abc import Callable
from typing import Any

TIMES = ("wall", "schedule", "execute", "update", "rest")


class Stopwatch:
    """Wraps the scheduler and the executor of vLLM's in-process engine."""

    def __init__(self, engine):
        self.engine = engine
        self.now: dict[str, float] = {}
        core = engine.engine_core.engine_core
        self._time(core.scheduler, "schedule", "schedule")
        self._time(core.scheduler, "update_from_output", "update")
        self._time(core.model_executor, "execute_model", "execute", self._count)
        if hasattr(core.model_executor, "sample_tokens"):
            self._time(core.model_executor, "sample_tokens", "execute")

    def _time(self, owner: Any, method: str, key: str, look: Callable | None = None) -> None:
        function = getattr(owner, method)

        def timed(*args, **kwargs):
            if look:
                look(*args)
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            self.now[key] = self.now.get(key, 0.0) + time.perf_counter() - begin
            return result

        setattr(owner, method, timed)

    def _count(self, scheduled, *_) -> None:
        self.now["passes"] = len(scheduled.num_scheduled_tokens)
        batch = getattr(scheduled, "batch", None)
        self.now["positions"] = 0 if batch is None else len(batch.positions)

    def run(self, seconds: float = float("inf"), most: int | None = None) -> list[dict[str, float]]:
        """Step until nothing is left, or so long, or so often. For each step that computed something, its seconds
        (`wall`, and of it `schedule`, `execute`, `update` and the front end's `rest`), passes and positions."""
        steps, begin = [], time.perf_counter()
        while self.engine.has_unfinished_requests() and time.perf_counter() - begin < seconds:
            if most is not None and len(steps) >= most:
                break
            self.now = dict.fromkeys(("schedule", "execute", "update", "passes", "positions"), 0.0)
            start = time.perf_counter()
            self.engine.step()
            self.now["wall"] = time.perf_counter() - start
            self.now["rest"] = self.now["wall"] - sum(self.now[k] for k in ("schedule", "execute", "update"))
            steps.append(self.now)
        return steps
