"""Two engines behind one server: independent ones, each with the whole model, that share the requests."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import likelihood_cases
import recorded
from golden_cases import sample
from processes import END_S, check_gone, end_group, shared_memory, titled, tree
from prometheus_client.parser import text_string_to_metric_families
from served import Server
from server_process import start, wait_until_healthy


def passes_by_engine(server: Server) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(server.url + "/metrics", timeout=30).text)
    passes = next(f for f in families if f.name == "vllm_dllm:passes")
    return {s.labels["engine"]: s.value for s in passes.samples if s.name.endswith("_total")}


def test_engines_share_the_requests_and_answer_as_one(tmp_path, sampling):
    """Golden cases of all policies but elastic, sixteen at a time; each engine takes some. At the end the server is
    killed, and all of its processes end. The passes of one call for likelihoods are spread over both, too."""
    cases = [c for c in sample("tiny-llada", sampling) if c.settings["dllm_cache"] != "elastic"]
    # two engines on two cores: each takes what it gets
    server = start(tmp_path, environment={"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, data_parallel_size=2)
    try:
        wait_until_healthy(server)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda case: case.ask(server), cases))
        sampling.check([c.difference(*a) for c, a in zip(cases, answers, strict=True)])

        passes = passes_by_engine(server)
        assert set(passes) == {"0", "1"} and all(passes.values())
        assert sum(passes.values()) == sum(len(trace["query_tokens"]) for _, trace in answers)

        scored = likelihood_cases.sample("tiny-llada", sampling, 6)
        read = server.post("/v1/dllm/loglikelihood", {"pairs": likelihood_cases.pairs(scored)}).json()["data"]
        rows = zip(scored, read, strict=True)
        sampling.check([likelihood_cases.difference(c, "chain", r["logprob"], r["token_logprobs"]) for c, r in rows])
        assert all(more > passes[engine] for engine, more in passes_by_engine(server).items())

        drawn = {"n": 4, "temperature": 1.0, "ignore_eos": True, "return_token_ids": True}
        body = {"prompt": cases[0].case["prompt_ids"], "max_tokens": 32, "vllm_xargs": {"dllm_record": True}} | drawn
        answer = server.post("/v1/completions", body).raise_for_status().json()
        traces = {int(trace["request_id"].split("_")[0]): trace for trace in server.traces(answer["id"], 4)}
        for choice in answer["choices"]:
            recorded.check(choice["dllm_record"], traces[choice["index"]], choice["token_ids"])

        processes = tree(server.process.pid)
        for title, number in (("APIServer", 2), ("DPCoordinator", 1), ("EngineCore", 2), ("Worker", 2)):
            assert len(titled(title, processes)) == number, [p.cmdline() for p in processes]
        shared = shared_memory(processes)
        server.process.kill()
        server.process.wait()
        check_gone(processes, shared, time.monotonic() + END_S)
    finally:
        end_group(server.process)
