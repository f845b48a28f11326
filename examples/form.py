"""Have a form filled in: an answer whose text is given but for holes of so many tokens.

    make serve                                                       (in another terminal)
    python examples/form.py "count 3 by 4 x6" "3 7 {5} 19 {2}"
    python examples/form.py "calc 12+7" "12+7={2};#{2}"

The model sees the whole form and fills its holes in any order. A hole has its length: {5} is five tokens.
"""

import argparse
import json
import re

from openai import OpenAI, OpenAIError

HOLE = re.compile(r"\{(\d+)\}")


def template(form: str) -> list[str | int]:
    """The form as `dllm_template`: given strings, and numbers of tokens to be found."""
    parts = HOLE.split(form)  # text and hole by turns
    return [part if i % 2 == 0 else int(part) for i, part in enumerate(parts) if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("form", help="the answer, with {N} for each hole of N tokens")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="further dllm_* settings")
    args = parser.parse_args()

    client = OpenAI(base_url=args.url, api_key="none")
    try:
        answer = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": args.question}],
            extra_body={"vllm_xargs": args.settings | {"dllm_template": template(args.form)}},
        )
    except OpenAIError as error:
        raise SystemExit(f"error: {error}") from None
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
