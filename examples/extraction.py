"""Have an answer that fits a schema: every one of its fields, whatever the model says.

    make serve                                                       (in another terminal)
    python examples/extraction.py "count 3 by 4 x6"
    python examples/extraction.py "sum 1 2 3" --settings '{"dllm_cache": "dual"}'

The schema is a pydantic model; the `openai` package sends it along and reads the answer into it.
"""

import argparse
import json

from openai import OpenAI, OpenAIError
from pydantic import BaseModel, Field


class Numbers(BaseModel):
    """What is to be found: a list of numbers, and how sure that is."""

    numbers: list[int] = Field(min_length=1, max_length=16)
    sure: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="dllm_* settings")
    args = parser.parse_args()

    client = OpenAI(base_url=args.url, api_key="none")
    try:
        answer = client.chat.completions.parse(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": args.question}],
            max_tokens=args.max_tokens,
            response_format=Numbers,
            extra_body={"vllm_xargs": args.settings},
        )
    except OpenAIError as error:
        raise SystemExit(f"error: {error}") from None
    found = answer.choices[0].message.parsed
    assert found is not None
    print(f"{len(found.numbers)} numbers, {'sure' if found.sure else 'not sure'}: {found.numbers}")


if __name__ == "__main__":
    main()
