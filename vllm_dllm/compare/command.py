"""`vllm-dllm compare`: its arguments, and what it does with them."""

import argparse
import hashlib
import math
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.plugins import load_general_plugins
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_dllm.compare import random_weights
from vllm_dllm.compare.answers import Bench, Request, machine
from vllm_dllm.compare.grader import Grader, GraderError, by_command, by_regex
from vllm_dllm.compare.measured import Measured, Round, plan
from vllm_dllm.compare.prompts import Prompt, PromptError, read_prompts
from vllm_dllm.compare.report import Row, rows, sentence, table
from vllm_dllm.compare.variants import Variant, fixed_steps, needs_hidden, possible, settings_for, variants
from vllm_dllm.engine_config import traits_of
from vllm_dllm.options import SettingError
from vllm_dllm.settings import given

INTERRUPTED = 128 + signal.SIGINT  # the exit status, as a shell has it
IN_FLIGHT, TOKENS_A_STEP = 16, 16384  # of the engine, unless vLLM's own flags say otherwise
WARM_UP = 3.0  # seconds a policy: on a CPU every number of rows that is new costs the making of a kernel
RANDOM = {"prompts": 64, "prompt": 256, "tokens": 4}  # with --random-weights: how many, how long, unmasked a pass

DESCRIPTION = """Which caching policy for these prompts, on this machine?

Every policy answers them, greedily, the same ones; `none` is what the others are compared with. What is measured goes
to --output: answers, a table (Markdown), a picture (SVG). Interrupted, by --budget or Ctrl-C, it says what it has; the same
command goes on from there.

All further arguments are those of `vllm serve`, and make the engine: --dtype, --tensor-parallel-size, --max-num-seqs (16
unless given: so many requests run at once), --dllm-block-length, --dllm-threshold ... A request without a length of its
own has --dllm-gen-length. The last line says what to write on the command line."""


def arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and what is left, which is vLLM's. The model comes first."""
    parser = argparse.ArgumentParser(
        prog="vllm-dllm compare",
        usage="vllm-dllm compare MODEL --prompts FILE [options] [options of vllm serve]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--prompts", type=Path, metavar="FILE", help=(read_prompts.__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--policies", nargs="+", default=[], metavar="NAME[:SETTING=VALUE,...]", help="all of them unless given"
    )
    parser.add_argument("--budget", type=float, default=math.inf, metavar="MINUTES", help="of measuring, at most")
    parser.add_argument("--output", type=Path, default=Path("compare"), metavar="FOLDER", help="default: compare")
    parser.add_argument(
        "--grade-regex",
        metavar="PATTERN",
        help="an answer in which it is found is right; {name} stands for a field of the prompt's line: ^{want}$",
    )
    parser.add_argument(
        "--grade-command",
        metavar="COMMAND",
        help='reads a JSON line for each answer, {"line": ..., "answer": ...}, and prints its grade, from 0 to 1',
    )
    parser.add_argument(
        "--random-weights", metavar="MODEL", help="llada-8b, llada-200m: no checkpoint and no prompts, speed alone"
    )
    model = argv[0] if argv and not argv[0].startswith("-") else None
    args, rest = parser.parse_known_args(argv[1:] if model else argv)
    if (model is None) == (args.random_weights is None):
        parser.error("name one model: a checkpoint, first of all arguments, or --random-weights MODEL")
    if (args.prompts is None) == (args.random_weights is None):
        parser.error("--prompts FILE goes with a checkpoint, and with that alone")
    if args.grade_regex and args.grade_command:
        parser.error("one grader at most: --grade-regex or --grade-command")
    if not args.budget > 0:
        parser.error(f"--budget {args.budget} is not allowed: it must be above 0")
    args.model = model
    return args, rest


def main(argv: Sequence[str]) -> None:
    args, rest = arguments(argv)
    load_general_plugins()
    hear_ctrl_c()
    with tempfile.TemporaryDirectory() as folder:
        try:
            Comparison(args, rest, Path(folder)).run()
        except (SettingError, PromptError, GraderError, OSError, ValueError) as e:
            sys.exit(f"error: {e}")
        except Interrupted:
            sys.exit(INTERRUPTED)


class Interrupted(BaseException):
    """Ctrl-C. Not Python's KeyboardInterrupt, which vLLM swallows while an engine starts: then it waits for that for ten
    minutes, though the same Ctrl-C has ended it."""


def hear_ctrl_c() -> None:
    """From now on it raises Interrupted, and so does SIGTERM."""

    def interrupt(*_: Any) -> None:
        raise Interrupted

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


class Comparison:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace, rest: list[str], folder: Path):
        """Everything that can be wrong is found here, before the weights are loaded."""
        self.args, self.rest, self.folder = args, rest, folder
        self.random = args.random_weights is not None
        self.grader = _grader(args)
        self.engine = self._engine_args()
        self.server = given(self.engine.additional_config)
        model = self.engine.create_model_config()
        traits = traits_of(model)
        if self.random:
            self.prompts: list[Prompt | None] = [None] * RANDOM["prompts"]
            chosen = fixed_steps(RANDOM["tokens"])
            if args.policies:
                chosen = [v for v in chosen if v.cache in {"none", *args.policies}]
        else:
            self.prompts = list(read_prompts(args.prompts))
            chosen = variants(args.policies, traits.attention)
        own = [prompt.settings for prompt in self.prompts if prompt]
        self.variants, self.refused = possible(chosen, self.server, traits, own or [{}])
        args.output.mkdir(parents=True, exist_ok=True)
        self.measured = Measured(args.output / "measured.jsonl", self._about())

    def _engine_args(self) -> EngineArgs:
        parser = EngineArgs.add_cli_args(FlexibleArgumentParser(prog="vllm-dllm compare MODEL --prompts FILE"))
        named = parser.parse_args(self.rest)
        if self.random:
            shape = random_weights.named_shape(self.args.random_weights)
            named.model = str(random_weights.write_config(shape, self.folder))
            named.load_format, named.skip_tokenizer_init = "dummy", True
            named.worker_extension_cls = "vllm_dllm.compare.random_weights.RandomWeights"
            if named.max_model_len is None:
                named.max_model_len = 1024
        else:
            named.model = self.args.model
        if named.max_num_seqs is None:
            named.max_num_seqs = IN_FLIGHT
            self.rest += ["--max-num-seqs", str(IN_FLIGHT)]
        if named.max_num_batched_tokens is None:
            named.max_num_batched_tokens = TOKENS_A_STEP
            self.rest += ["--max-num-batched-tokens", str(TOKENS_A_STEP)]
        named.disable_log_stats = True  # lines that would tear the bar apart
        engine = EngineArgs.from_cli_args(named)
        if "dllm_cache" in (engine.additional_config or {}):
            raise SettingError("dllm_cache is not allowed here: --policies says which are compared")
        return engine

    def _about(self) -> dict[str, Any]:
        prompts = self.args.prompts.read_bytes() if self.args.prompts else b""
        return {
            "model": self.args.model or self.args.random_weights,
            "arguments": shlex.join(self.rest),
            "prompts": f"{len(self.prompts)}, sha256 {hashlib.sha256(prompts).hexdigest()[:16]}",
            "machine": machine(),
        }

    def run(self) -> None:
        for name, why in self.refused.items():
            print(f"not compared: {name}: {why}", flush=True)
        if self.args.grade_command or self.args.grade_regex:
            assert self.grader
            self.grader([])  # one that cannot be run is known before anything is measured
        work = plan(self.measured, self.variants, len(self.prompts), self.engine.max_num_seqs, self._seconds_left())
        interrupted = False
        try:
            first = next(work, None)
            if first is not None:
                self._measure(first, work)
        except Interrupted:
            interrupted = True
            print("\ninterrupted: this is what there is", flush=True)
        self._report()
        if interrupted:
            sys.exit(INTERRUPTED)

    def _seconds_left(self) -> Iterator[float]:
        self.until = math.inf
        while True:
            yield self.until - time.monotonic()

    def _measure(self, first: tuple[Round, Variant], work: Iterator[tuple[Round, Variant]]) -> None:
        """Whatever is left to be measured."""
        more = {"dllm_hidden_cache": True} if needs_hidden(self.variants) else {}
        arguments = dict(vars(self.engine))
        arguments["additional_config"] = more | (arguments["additional_config"] or {})
        bench = Bench(self.folder / "trace.jsonl", **arguments)
        if self.random:
            bench.llm.collective_rpc("draw_weights")
        self.until = time.monotonic() + 60 * self.args.budget
        inputs = [self._input(bench, number) for number in range(len(self.prompts))]
        warm: set[str] = set()
        done = sum(stop - begin for v in self.variants for begin, stop in self.measured.of(v))
        bar = tqdm(total=len(self.prompts) * len(self.variants), initial=done, unit="answer", dynamic_ncols=True)
        todo: tuple[Round, Variant] | None = first
        try:
            while todo is not None:
                (begin, stop), variant = todo
                bar.set_description(variant.name)
                if variant.name not in warm:
                    warm.add(variant.name)
                    early = self._requests(inputs, variant, range(min(self.engine.max_num_seqs, len(inputs))))
                    bench.run(early, until=min(self.until, time.monotonic() + WARM_UP))
                requests = self._requests(inputs, variant, range(begin, stop))
                until = None if math.isinf(self.until) else self.until
                run = bench.run(requests, until=until, finished=lambda output: bar.update())
                if run is None:
                    print("\nthe budget is spent: this is what there is", flush=True)
                    return
                self.measured.add(variant, (begin, stop), run)
                todo = next(work, None)
        finally:
            bar.close()
            bench.close()

    def _input(self, bench: Bench, number: int) -> Any:
        prompt = self.prompts[number]
        if prompt is None:
            rng, size = random.Random(number), bench.llm.model_config.get_vocab_size()
            return {"prompt_token_ids": [rng.randrange(size // 2) for _ in range(RANDOM["prompt"])]}
        try:
            return prompt.rendered(bench.llm)
        except ValueError as e:
            raise PromptError(f"{prompt.where}: {e}") from None

    def _requests(self, inputs: list[Any], variant: Variant, numbers: range) -> list[Request]:
        return [(inputs[number], self._params(self.prompts[number], variant)) for number in numbers]

    def _params(self, prompt: Prompt | None, variant: Variant) -> SamplingParams:
        if prompt is not None:
            return prompt.params(settings_for(variant, prompt.settings))
        length = self.server.get("dllm_gen_length", 256)
        return SamplingParams(
            temperature=0, max_tokens=length, ignore_eos=True, detokenize=False, extra_args=dict(variant.settings)
        )

    def _report(self) -> None:
        found = rows(self.measured, self.variants, self.prompts, self.grader)
        if not found:
            sys.exit("error: nothing has been measured yet")
        command = shlex.join(["vllm", "serve", self.args.model or "MODEL", *self.rest])
        said = sentence(found, command, len(self.prompts), self.random)
        notes = [f"Not compared: `{name}`. {why}." for name, why in self.refused.items()]
        notes += [
            f"`{v.name}` is with {', '.join(f'{k}={value}' for k, value in v.added.items())}, without which it cannot be had."
            for v in self.variants
            if v.added and not self.random
        ]
        missing = [f"`{v.name}`" for v in self.variants if v.name not in {row.variant.name for row in found}]
        if missing:
            notes.append(f"Not measured yet: {', '.join(missing)}.")
        head = f"{max(row.prompts for row in found)} of {len(self.prompts)} prompts, {self.engine.max_num_seqs} requests at once, {machine()}."
        text = "\n".join([head, "", table(found), *(note + "\n" for note in notes), said])
        (self.args.output / "report.md").write_text(f"# {self._about()['model']}\n\n{text}\n")
        print(f"\n{text}\n")
        if (why := _draw(found, self.args.output / "picture.svg", self._about()["model"])) is not None:
            print(why)
        print(f"in {self.args.output}: report.md, picture.svg, measured.jsonl" if why is None else "")


def _grader(args: argparse.Namespace) -> Grader | None:
    if args.grade_regex:
        return by_regex(args.grade_regex)
    return by_command(args.grade_command) if args.grade_command else None


def _draw(found: list[Row], file: Path, title: str) -> str | None:
    """The picture: speed against agreement. What to do about it where it cannot be drawn."""
    try:
        from vllm_dllm.compare.picture import Line, draw
    except ImportError:
        return "no picture: it needs matplotlib, pip install 'vllm-dllm[compare]'"
    graded = found[0].grade is not None
    label = "right answers, %" if graded else "answers that are those of none, %"
    y: Callable[[Row], float] = lambda row: 100 * (row.grade if row.grade is not None else row.answers_equal)  # noqa: E731
    lines = {row.variant.name: Line([row.speed], [y(row)]) for row in found}
    low = max(0, min(map(y, found)) - 5)
    draw(lines, file, title, ("speed, times that of none", label), y_range=(low, 102))
    return None
