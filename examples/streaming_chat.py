"""A chat client that prints the answer as it comes. Any server that speaks the OpenAI API will do.

    make serve                                                       (in another terminal)
    python examples/streaming_chat.py "count 3 by 4 x6"
    python examples/streaming_chat.py "echo hello" --settings '{"dllm_threshold": 0.7}'
    python examples/streaming_chat.py                                questions from the terminal

A diffusion model's tokens become final in any order. What is streamed is the part that is final from the
response's start on, so text comes in pieces of one token to several dozen.
"""

import argparse
import json
from typing import Any

from openai import OpenAI, OpenAIError


def stream(client: OpenAI, model: str, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
    """Print the answer while it comes, and return it."""
    answer = ""
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True, **options):
        text = chunk.choices[0].delta.content or ""
        print(text, end="", flush=True)
        answer += text
    print()
    return answer


def chat(client: OpenAI, model: str, options: dict[str, Any], history: bool) -> None:
    """Ask what is typed, line by line, until the end of input or Ctrl-C."""
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not question:
            continue
        if not history:
            messages = []
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": stream(client, model, messages, options)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", help="one question; without it, from the terminal")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--max-tokens", type=int, help="the response's length; else the server's dllm_gen_length")
    parser.add_argument(
        "--settings", type=json.loads, default={}, metavar="JSON", help="dllm_* settings of the request"
    )
    parser.add_argument(
        "--history", action="store_true", help="send earlier turns along (the bundled checkpoints know only one)"
    )
    args = parser.parse_args()

    client = OpenAI(base_url=args.url, api_key="none")
    options: dict[str, Any] = {"extra_body": {"vllm_xargs": args.settings}}
    if args.max_tokens is not None:
        options["max_tokens"] = args.max_tokens
    try:
        model = client.models.list().data[0].id
        if args.prompt is None:
            chat(client, model, options, args.history)
        else:
            stream(client, model, [{"role": "user", "content": args.prompt}], options)
    except OpenAIError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
