"""What a partial pass costs, beside so many plain tokens of the same model through vLLM, in one run.

    python benchmarks/pass_cost.py --random 200M
    python benchmarks/pass_cost.py --model checkpoints/tiny-llada

"Plain" is vLLM's own Llama with the same dimensions (and weights of no meaning, which cost the same): a step that
prefills one block's tokens for each request in flight. A `dual` pass computes as many query positions, but attends to
a canvas of 512 and reads all its rows, where a prefill reads one. Both engines are there throughout and take turns;
a number is the median over the steps of all rounds. Prints a Markdown table:

    ms/step     wall time of a step that holds a pass of each request
    of plain    that of the plain tokens at the same concurrency
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from random_model import add_model, random_model
from vllm import LLM, SamplingParams

CANVAS = 512
STEPS = 16  # passes over a block: the first is full, the others are what is measured
IDLE = 1.5  # seconds until vLLM's processes stop polling, so that the other engine has all cores


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--concurrency", default="1,16", help="requests in flight, with commas")
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser.parse_args()


def llama_folder(llada: Path, folder: Path) -> Path:
    """A config of vLLM's own Llama with the dimensions of a LLaDA checkpoint, without weights."""
    config = json.loads((llada / "config.json").read_text())
    llama = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config["d_model"],
        "intermediate_size": config["mlp_hidden_size"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config.get("n_kv_heads") or config["n_heads"],
        "num_hidden_layers": config["n_layers"],
        "vocab_size": config["embedding_size"],
        "max_position_embeddings": CANVAS,
        "rms_norm_eps": config["rms_norm_eps"],
        "tie_word_embeddings": config["weight_tying"],
    }
    (folder / "config.json").write_text(json.dumps(llama))
    return folder


def engine(folder: Path, args: argparse.Namespace, requests: int, **more) -> LLM:
    return LLM(
        str(folder),
        dtype=args.dtype,
        skip_tokenizer_init=True,
        max_model_len=CANVAS,
        max_num_seqs=requests,
        max_num_batched_tokens=requests * CANVAS,
        kv_cache_memory_bytes=1 << 30,
        enforce_eager=True,
        enable_prefix_caching=False,
        **more,
    )


def step_times(llm: LLM, prompts: list[list[int]], params: SamplingParams) -> list[float]:
    """Seconds of each step, from all requests waiting to all of them answered."""
    core = llm.llm_engine
    for i, prompt in enumerate(prompts):
        core.add_request(str(i), {"prompt_token_ids": prompt}, params)
    times = []
    while core.has_unfinished_requests():
        begin = time.perf_counter()
        core.step()
        times.append(time.perf_counter() - begin)
    return times


def main() -> None:
    args = arguments()
    llada = random_model(args.random) if args.random else args.model
    levels = [int(level) for level in args.concurrency.split(",")]
    block = args.block_length
    plain_params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False)
    settings = {"dllm_cache": "dual", "dllm_block_length": block, "dllm_steps": STEPS}
    dual_params = SamplingParams(
        temperature=0, max_tokens=block, ignore_eos=True, detokenize=False, extra_args=settings
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = engine(llama_folder(llada, Path(folder)), args, max(levels), load_format="dummy")
        dual = engine(llada, args, max(levels))
    found: dict[tuple[str, int], list[float]] = {}
    for round_ in range(args.rounds + 1):  # the first warms up
        for level in levels:
            time.sleep(IDLE)
            # the first step is not sure to hold all requests; each of the others prefills a block of each
            waves = [step_times(plain, [[7] * block] * level, plain_params) for _ in range(STEPS)]
            time.sleep(IDLE)
            passes = step_times(dual, [[7] * (CANVAS - block)] * level, dual_params)
            if round_:
                found.setdefault(("plain", level), []).extend(sum(wave) for wave in waves[1:])
                found.setdefault(("full pass", level), []).append(passes[0])
                found.setdefault(("`dual` pass", level), []).extend(passes[1:])
    print(f"| {block} tokens a request | concurrency | ms/step | of plain |\n| --- | ---: | ---: | ---: |")
    for level in levels:
        base = statistics.median(found["plain", level])
        for name in ("plain", "`dual` pass", "full pass"):
            median = statistics.median(found[name, level])
            print(f"| {name} | {level} | {median * 1e3:.2f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
