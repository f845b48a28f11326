"""The harness's model class `vllm-dllm`: a diffusion model as its authors' own evaluation scripts ask it.

Sources: ML-GSAI/LLaDA, eval_llada.py; DreamLM/Dream, eval/eval.py. Both ask one question at a time.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from tqdm import tqdm

from vllm_dllm.lm_eval.arguments import Arguments, read
from vllm_dllm.options import SettingError

DEFAULT_LENGTH = 256  # of an answer where neither the user nor the task says one: the harness's


@register_model("vllm-dllm")
class DiffusionLM(TemplateLM):
    """`arguments` are `--model_args`: docs/evaluation.md. Raises SettingError for what is not allowed."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.arguments: Arguments = read(arguments)
        if self.arguments.base_url is None:
            from vllm_dllm.lm_eval.offline import Offline as Engine
        else:
            from vllm_dllm.lm_eval.served import Served as Engine  # type: ignore[assignment]
        self.engine = Engine(self.arguments)
        self.tokenizer = self.engine.tokenizer

    # ---- text and tokens ----

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a target that has no context."""
        return self.eot_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id

    @property
    def max_length(self) -> int:
        return self.engine.max_length

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """As the authors' scripts: with the tokenizer's own special tokens, but no second beginning of sequence."""
        if add_special_tokens is None:
            add_special_tokens = not has_bos_prefix(string, self.tokenizer.bos_token)
        return self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"]

    def _begun(self, context: str) -> str:
        bos = self.tokenizer.bos_token
        if not self.arguments.add_bos_token or has_bos_prefix(context, bos):
            return context
        if bos is None:
            raise SettingError("add_bos_token=True is not allowed: the tokenizer has no such token")
        return bos + context

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return super()._encode_pair(self._begun(context), continuation)

    # ---- answers ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked = [self._request(place, *request.args) for place, request in enumerate(requests)]
        answers = [""] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests")
        for place, text in self.engine.generate([(prompt, params) for prompt, params, _ in asked]):
            answers[place] = self._cut(text, asked[place][2])
            self.cache_hook.add_partial("generate_until", requests[place].args, answers[place])
            bar.update(1)
        bar.close()
        return answers

    def _request(
        self, place: int, context: str, gen_kwargs: dict[str, Any]
    ) -> tuple[list[int], dict[str, Any], list[str]]:
        """A question's prompt, its sampling parameters by vLLM's names, and where its answer is cut."""
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(gen_kwargs, DEFAULT_LENGTH))
        del kwargs["do_sample"]
        length, until = kwargs.pop("max_gen_toks"), kwargs.pop("until")
        until = [] if self.arguments.escape_until else [stop for stop in until if stop]
        params = {"temperature": 0.0, "seed": self.arguments.seed + place} | kwargs | self.arguments.sampling
        params |= {"max_tokens": self.arguments.gen_length or length, "stop": until, "skip_special_tokens": False}
        prompt = self.tok_encode(self._begun(context))
        room = self.max_length - params["max_tokens"]
        if room < 1:
            raise SettingError(
                f"an answer of {params['max_tokens']} tokens (dllm_gen_length, else the task's max_gen_toks) is not allowed: "
                f"with its prompt it must have at most {self.max_length} (max_model_len)"
            )
        return prompt[-room:], params, until

    def _cut(self, text: str, until: Iterable[str]) -> str:
        """The answer before the task's stop strings, which may be special tokens, and then without those."""
        for stop in until:
            text = text.split(stop)[0]
        return self.tokenizer.decode(self.tokenizer(text)["input_ids"], skip_special_tokens=True)

    # ---- scores ----

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        pairs = [self._pair(context, target) for _, context, target in requests]
        scores = [(0.0, False)] * len(pairs)
        bar = tqdm(total=len(pairs), disable=disable_tqdm, desc="Running loglikelihood requests")
        for place, logprob, greedy in self.engine.loglikelihood(pairs):
            scores[place] = (logprob, bool(greedy))
            key = requests[place][0]
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, scores[place])
            bar.update(1)
        bar.close()
        return scores

    def _pair(self, context: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        """With the end token behind the target where the authors have it, and the context's end where it is too long."""
        if self.append_eos:
            target = [*target, self.eot_token_id]
        room = self.max_length - len(target)
        if room < 0:
            raise SettingError(
                f"a target of {len(target)} tokens is not allowed: it must be at most {self.max_length} (max_model_len)"
            )
        return context[max(0, len(context) - room) :], target

    @property
    def append_eos(self) -> bool:
        if self.arguments.append_eos is not None:
            return self.arguments.append_eos
        family = self.engine.family
        if family is None:
            raise SettingError(
                "append_eos is missing: whether the model's authors score a target with the end token behind it (Dream) is "
                "seen from its config.json, and pretrained names none"
            )
        return family.masks == "times"

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each whole text, in windows of the longest canvas, so that each token is scored once, behind one at least."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []
        room = self.max_length - 1 - self.append_eos
        for place, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            found = utils.get_rolling_token_windows(tokens, self.prefix_token_id, max_seq_len=room, context_len=1)
            windows += [(None, *utils.make_disjoint_window(window)) for window in found]
            owners += [place] * (len(windows) - len(owners))
        totals = [0.0] * len(requests)
        for place, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[place] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals
