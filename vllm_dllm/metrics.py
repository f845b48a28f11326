"""What the log and `/metrics` show of diffusion decoding.

    engine core                         vLLM's message of each step           API server
    DllmScheduler -> StepCounts -> SchedulerStats.waiting_lora_adapters -> DllmStatLogger

`SchedulerStats` is what crosses between the two processes. It is decoded as vLLM's own class, so a field
added by a subclass would be lost; of the dictionaries it has, this is the one that nothing reads without
LoRA, which is refused for our models (engine_config.py).
"""

from collections import Counter, defaultdict
from functools import cache
from typing import Any

import prometheus_client
from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from vllm_dllm.caching.registry import REASONS
from vllm_dllm.decoding import Decoding, Finished
from vllm_dllm.models import is_ours
from vllm_dllm.passes import Pass
from vllm_dllm.scoring import Scoring

logger = init_logger(f"vllm.{__name__}")  # below vLLM's own, which has the handler and the level

COUNTERS = {
    "passes": "Passes: forwards of the model over positions of one request's canvas.",
    "computed_tokens": "Positions computed; a mean over the layers where they compute different numbers.",
    "cacheless_tokens": "Positions that an engine without a cache would have computed: the canvas in each pass, as far as it exists.",
    "absent_tokens": "Positions that did not exist yet in a pass: the canvas behind its horizon (dllm_horizon).",
    "scoring_passes": "Passes that read how likely tokens are that are there, and unmask nothing.",
    "full_passes": "Passes that computed the whole canvas from the first layer on.",
    "postponed_refreshes": "Passes that went on without a due refresh (dllm_max_delay).",
    "failed_requests": "Requests that ended with an error, for the model's output was not finite or no token was left.",
}
STALE = "stale_pages"  # counted by reason
HISTOGRAMS = {
    "pass_unmasked_tokens": ("Tokens unmasked by a pass.", [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128]),
    "request_passes": ("Passes of a request, when it ended.", [2**i for i in range(13)]),
}


class StepCounts:
    """The scheduler's side: plain integers since the last message, by a metric's name.

    A histogram's key is `name=value`, and the number how often that value was seen; a labelled counter's
    is `name=label`. A pass is counted when it is read, so that of an aborted request the last may be missing.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.unmasked: dict[int, int] = defaultdict(int)  # passes, by the tokens that they unmasked
        self.marks: dict[str, dict[str, int]] = {}  # by request: those of its ledger's marks that were counted

    def count(self, name: str, number: int) -> None:
        if number:
            self.counts[name] += number

    def add_pass(self, req_id: str, decoding: Decoding | Scoring, done: Pass, finished: Finished) -> None:
        """Count a pass that `decoding` has finished."""
        counts, canvases = self.counts, 1 if done.second is None else 2
        counts["passes"] += 1
        counts["computed_tokens"] += _computed(done, finished.seen.layer_tokens)
        if done.second is not None:
            counts["computed_tokens"] += _computed(done.second, finished.seen.second[1])
        counts["cacheless_tokens"] += done.end * canvases
        self.count("absent_tokens", (decoding.length - done.end) * canvases)
        self.count("full_passes", done.full)
        self.count("postponed_refreshes", decoding.postponed > 0)
        if isinstance(decoding, Scoring):
            counts["scoring_passes"] += 1
        else:
            self.unmasked[len(finished.unmasked)] += 1
        marks, counted = decoding.marks, self.marks.get(req_id, {})
        if marks != counted:
            for reason, pages in marks.items():
                if more := pages - counted.get(reason, 0):
                    counts[f"{STALE}={reason}"] += more
            self.marks[req_id] = dict(marks)

    def end_request(self, req_id: str, passes: int) -> None:
        self.marks.pop(req_id, None)
        self.counts[f"request_passes={passes}"] += 1

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        taken = dict(self.counts) | {f"pass_unmasked_tokens={n}": passes for n, passes in self.unmasked.items()}
        self.counts, self.unmasked = defaultdict(int), defaultdict(int)
        return taken


def _computed(done: Pass, layers: list[int] | None) -> int:
    return round(sum(layers) / len(layers)) if layers else len(done.queries)


@cache  # a process has one registry, however many engines it starts
def metrics() -> dict[str, Any]:
    """The Prometheus metrics by name, `vllm_dllm:NAME` in the registry."""
    labels = ["model_name", "engine"]
    found: dict[str, Any] = {
        name: prometheus_client.Counter(f"vllm_dllm:{name}", text, labels) for name, text in COUNTERS.items()
    }
    text = f"Pages marked stale, by reason: {', '.join(REASONS)}."
    found[STALE] = prometheus_client.Counter(f"vllm_dllm:{STALE}", text, [*labels, "reason"])
    for name, (text, buckets) in HISTOGRAMS.items():
        found[name] = prometheus_client.Histogram(f"vllm_dllm:{name}", text, labels, buckets=buckets)
    return found


class DllmStatLogger(StatLoggerBase):
    """The API server's side, an entry point of `vllm.stat_logger_plugins`; idle for other models.

    vLLM makes one in each API server process. With several of them each gets a part of the counts:
    Prometheus adds the parts up, and the log leaves them out, as it does vLLM's own.
    """

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0):
        model = vllm_config.model_config
        self.ours = is_ours(model)
        self.logs = vllm_config.parallel_config._api_process_count == 1
        self.interval: Counter[str] = Counter()  # since the last line in the log
        self.metrics: dict[str, Any] = {}  # by key, as StepCounts has them; without `=value` for a histogram
        if self.ours:
            labels = (model.served_model_name, str(engine_index))
            found = metrics()
            self.metrics = {name: found[name].labels(*labels) for name in (*COUNTERS, *HISTOGRAMS)}
            self.metrics |= {f"{STALE}={reason}": found[STALE].labels(*labels, reason) for reason in REASONS}

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if not self.ours or scheduler_stats is None:
            return
        for key, count in scheduler_stats.waiting_lora_adapters.items():
            name, _, value = key.partition("=")
            if name in HISTOGRAMS:
                for _ in range(count):
                    self.metrics[name].observe(int(value))
                self.interval[name] += int(value) * count
            else:
                self.metrics[key].inc(count)
                self.interval[key] += count

    def log(self) -> None:
        """vLLM calls it once in each of its logging intervals."""
        seen, self.interval = self.interval, Counter()
        if self.logs and seen["passes"]:
            logger.info(
                "Diffusion: %d passes, %.0f %% of tokens computed, %d full passes, %.1f tokens a pass",
                seen["passes"],
                100 * seen["computed_tokens"] / seen["cacheless_tokens"],
                seen["full_passes"],
                seen["pass_unmasked_tokens"] / max(seen["passes"] - seen["scoring_passes"], 1),
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""
