"""What ranks send each other in a pass: so much for each query token and row, whatever the canvas's length."""

from contextlib import closing

from common import ROOT, Engine

RANKS = 2
LAYERS, WIDTH, VOCABULARY, SIZE = 6, 128, 128, 4  # of tiny-llada in float32


def test_bytes_of_passes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # the engine's processes inherit it
    from communication import passes_of_request

    counter = {"tensor_parallel_size": RANKS, "worker_extension_cls": "communication.CommunicationCounter"}
    with closing(Engine("tiny-llada", tmp_path / "trace.jsonl", **counter)) as engine:
        counted = {canvas_len: passes_of_request(engine.llm, canvas_len) for canvas_len in (128, 512)}
    for canvas_len, passes in counted.items():
        # 8 of 32 positions are unmasked in each pass, and those that are still masked are read
        for step, (query_tokens, rows) in zip(passes, [(canvas_len, 32), (32, 24), (32, 16), (32, 8)], strict=True):
            assert step == {
                "query_tokens": query_tokens,
                "canvas_tokens": canvas_len,
                "rows": rows,
                "layers": LAYERS * 2 * query_tokens * WIDTH * SIZE,
                "embedding": query_tokens * WIDTH * SIZE,
                "logits": rows * VOCABULARY // RANKS * SIZE,
                "other": 0,
            }
