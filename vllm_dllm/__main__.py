"""The command `vllm-dllm`."""

import sys


def main() -> None:
    usage = "usage: vllm-dllm compare MODEL --prompts FILE [...]\n\n  compare   which caching policy for these prompts?"
    if sys.argv[1:2] != ["compare"]:
        if sys.argv[1:2] in (["-h"], ["--help"]):
            print(usage)
            return
        sys.exit(f"{usage}\n\nerror: {' '.join(sys.argv[1:2]) or 'nothing'} is no command of vllm-dllm")
    try:
        from vllm_dllm.compare.command import main as compare  # imports vLLM, which takes a while

        compare(sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
