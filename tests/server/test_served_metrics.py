"""What `/metrics` and the log say of diffusion decoding, next to the traces of the same requests."""

import re
from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families
from served import UNSURE, text_prompt

PAGE = 32
TAU = 0.3
SETTINGS = [
    {"dllm_cache": "none"},
    {"dllm_cache": "dual", "dllm_block_length": 16},
    {"dllm_cache": "dkv-pd", "dllm_prompt_interval": 4},
    {"dllm_cache": "entropy", "dllm_tau": TAU},
]


def diffusion_metrics(server) -> Counter:
    """The value of each `vllm_dllm:` series, by name and what labels it has besides model and engine."""
    found: Counter = Counter()
    for family in text_string_to_metric_families(httpx.get(server.url + "/metrics", timeout=30).text):
        for name, labels, value, *_ in family.samples:
            if name.startswith("vllm_dllm:") and not name.endswith("_created"):
                assert labels.pop("model_name") == server.model and labels.pop("engine") == "0"
                found[name.removeprefix("vllm_dllm:"), *labels.values()] = value
    return found


def passes_in_the_log(server) -> int:
    lines = re.findall(r"Diffusion: (\d+) passes, \d+ % of tokens computed", server.log_file.read_text())
    return sum(map(int, lines))


def test_counts_are_those_of_the_traces(client, server):
    before = diffusion_metrics(server)
    prompt = text_prompt(UNSURE)
    traces = []
    for settings in SETTINGS:
        answer = client.completions.create(
            model=server.model, prompt=prompt, max_tokens=64, extra_body={"vllm_xargs": settings}
        )
        traces.append(server.trace(answer.id))
    ended = ("request_passes_count",)
    server.wait(lambda: diffusion_metrics(server)[ended] - before[ended] == len(SETTINGS), "the last counts")
    after = diffusion_metrics(server)
    counted = {key: after[key] - before[key] for key in after}

    passes = [len(t["query_tokens"]) for t in traces]
    canvas = traces[0]["prompt_len"] + 64
    unmasked = [len(positions) for t in traces for positions in t["unmasked"]]
    assert counted["passes_total",] == sum(passes)
    assert counted["computed_tokens_total",] == sum(sum(t["query_tokens"]) for t in traces)
    assert counted["cacheless_tokens_total",] == sum(passes) * canvas
    assert counted["full_passes_total",] == sum(sum(t["full"]) for t in traces)
    assert counted["postponed_refreshes_total",] == 0
    assert counted["request_passes_sum",] == sum(passes)
    assert counted["pass_unmasked_tokens_sum",] == sum(unmasked)
    for bucket in (1, 2, 4, 8):
        at_most = sum(n <= bucket for n in unmasked)
        assert counted["pass_unmasked_tokens_bucket", f"{bucket:.1f}"] == at_most

    pages = -(-canvas // PAGE)
    _, dual, dkv, entropy = traces
    stale = {key[1]: value for key, value in counted.items() if key[0] == "stale_pages_total"}
    assert stale["first pass"] == pages * len(traces)
    assert stale["block start"] == sum(dual["stale_pages"][1:]) > 0
    assert stale["interval"] == sum(dkv["stale_pages"][1:]) > 0
    assert stale["entropy"] == pages * sum(e > TAU for e in entropy["max_entropy"]) > 0
    assert stale["age"] == stale["drift"] == 0


def test_every_pass_is_in_the_log_once(client, server):
    client.completions.create(model=server.model, prompt=text_prompt("echo abc"), max_tokens=32)

    def all_in_the_log() -> bool:
        return passes_in_the_log(server) == diffusion_metrics(server)["passes_total",]

    server.wait(all_in_the_log, "the line of the last logging interval", 60)
    assert passes_in_the_log(server) > 0
