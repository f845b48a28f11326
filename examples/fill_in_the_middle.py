"""Fill a gap in a text, as code editors ask for it: `/v1/completions` with a prompt and a suffix.

    make serve                                                       (in another terminal)
    python examples/fill_in_the_middle.py "3 7___ 19 23" --question "count 3 by 4 x6" --max-tokens 6

The gap is as long as --max-tokens says, for the text behind it is there from the start: the model sees both sides, and
fills all of it. What it writes comes as it becomes final. A stop string ends it earlier.
"""

import argparse
import json

from openai import OpenAI, OpenAIError

GAP = "___"
# the bundled checkpoints answer questions and know no other text
TURN = "<|startoftext|><|user|>{question}<|assistant|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help=f"with {GAP} where something is missing")
    parser.add_argument("--question", help="what the text answers, for a model that knows answers only")
    parser.add_argument("--max-tokens", type=int, default=32, help="the gap's length in tokens")
    parser.add_argument("--stop", action="append", help="a string that ends it; may be given several times")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="dllm_* settings")
    args = parser.parse_args()
    before, gap, behind = args.text.partition(GAP)
    if not gap:
        parser.error(f"the text has no {GAP}")
    turn = TURN.format(question=args.question) if args.question else ""

    client = OpenAI(base_url=args.url, api_key="none")
    try:
        chunks = client.completions.create(
            model=client.models.list().data[0].id,
            prompt=turn + before,
            suffix=behind,
            max_tokens=args.max_tokens,
            stop=args.stop,
            stream=True,
            extra_body={"vllm_xargs": args.settings},
        )
        print(before, end="")
        for chunk in chunks:
            print(chunk.choices[0].text, end="", flush=True)
        print(behind)
    except OpenAIError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
