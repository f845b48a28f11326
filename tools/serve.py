"""Start `vllm serve`, ask it one question, keep it until Ctrl-C.

The arguments are those of `vllm serve`, the model first, passed on as they are
but for one, which is read here alone:

    --unless-in-blocks="..."    further ones, unless the model's attention is
                                causal by blocks

Called by `make serve`.
"""

import argparse
import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

HOST = "127.0.0.1"
# The answer to this one is "3 7 11 15 19 23".
QUESTION = "count 3 by 4 x6"
# What the server prints goes here: it is long, and of use when something fails.
LOG = "serve.log"
LOG_LINES_SHOWN = 20
# A line that ends a traceback there, behind what vLLM writes before each line.
ERROR_LINE = re.compile(r"(?:\(.*?\) ERROR .*?\] )?([\w.]+(?:Error|Exception): .*)")
# Models whose attention is causal by blocks.  The package knows them too, but to
# import it takes as long as half of the start.
IN_BLOCKS = ("SDARForCausalLM", "SDARMoeForCausalLM", "LLaDA2MoeModelLM")
# How long the server may take to end by itself, and its children after it.
STOP_SECONDS = 20

# No proxy, whatever the environment says: the server is on this machine.
http = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def environment() -> dict[str, str]:
    """The server's environment; what is already set stays as it is."""
    env = dict(os.environ)
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    # The CPU build takes half of the memory for its cache unless told a number
    # of GiB.  CUDA builds do not read this.
    env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return env


def is_in_blocks(model: str) -> bool:
    """Whether the attention of a model, a folder's or the hub's, is causal by blocks.

    False where nothing can be read: vLLM then says why.
    """
    try:
        path = os.path.join(model, "config.json")
        if not os.path.isdir(model):
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(model, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        return not set(IN_BLOCKS).isdisjoint(config.get("architectures") or ())
    except (OSError, ValueError):
        return False


def read(arguments: list[str]) -> tuple[list[str], int]:
    """The arguments of `vllm serve`, and its port."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--unless-in-blocks", type=shlex.split, default=[])
    parser.add_argument("--port", type=int, default=8000)
    known, others = parser.parse_known_args(arguments)
    more = known.unless_in_blocks
    if more and is_in_blocks(known.model):
        more = []
    return [known.model, *more, "--port", str(known.port), *others], known.port


def end_with_this_script() -> None:
    """In the server's process: the kernel ends it where this script is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def start(arguments: list[str]) -> subprocess.Popen:
    vllm = shutil.which("vllm", path=os.path.dirname(sys.executable))
    if vllm is None:
        sys.exit("error: no `vllm` command beside this Python; run `make serve`")
    # A session of its own, so that Ctrl-C reaches this script alone, which
    # then ends the server in order, and so that all its processes can be found.
    with open(LOG, "wb") as log:
        return subprocess.Popen(
            [vllm, "serve", *arguments],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_this_script if sys.platform == "linux" else None,
        )


def fail(text: str) -> int:
    say(f"error: {text}")
    return 1


def fail_with_log(text: str) -> int:
    with open(LOG, errors="replace") as log:
        lines = log.read().splitlines()
    print(f"-- the end of {LOG}:", *lines[-LOG_LINES_SHOWN:], sep="\n")
    # The first cause is printed by another process of vLLM, long before the end.
    errors = dict.fromkeys(m[1] for m in map(ERROR_LINE.match, lines) if m)
    if errors:
        print(f"-- errors in {LOG}, first to last:", *errors, sep="\n")
    return fail(text)


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def stop(server: subprocess.Popen) -> None:
    """End the server and every process it started."""
    deadline = time.monotonic() + STOP_SECONDS
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
    while group_alive(server.pid) and time.monotonic() < deadline:
        server.poll()
        time.sleep(0.1)
    if group_alive(server.pid):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def wait_until_healthy(server: subprocess.Popen, url: str) -> bool:
    """True once /health answers, False if the server ends before that."""
    while server.poll() is None:
        try:
            with http.open(f"{url}/health", timeout=5):
                return True
        except OSError:
            time.sleep(0.5)
    return False


def ask(url: str, question: str) -> str:
    with http.open(f"{url}/v1/models", timeout=60) as reply:
        model = json.load(reply)["data"][0]["id"]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with http.open(request, timeout=600) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def own_the_terminal() -> None:
    """Have Ctrl-C signal this process alone, not `make` above it too.

    make would end with "Interrupt" and an error status however well the server
    ended.  A process group in a terminal's foreground gets its signals, so this
    process makes one of its own, as a shell does for each command it runs.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return  # no terminal, no Ctrl-C
    if os.tcgetpgrp(terminal) == os.getpgrp() != os.getpid():
        # Setting a terminal's foreground group from outside of it, as is done
        # here, stops the process unless this signal is ignored.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        # Ctrl-Z would stop this process while make goes on waiting for it,
        # which leaves no way to get the terminal back.
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpid())
    os.close(terminal)


def main() -> int:
    arguments, port = read(sys.argv[1:])
    url = f"http://{HOST}:{port}"

    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            # Its answers would pass for those of the server started here.
            return fail(f"port {port} is taken; try make serve PORT=...")

    own_the_terminal()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    for number in signals:
        signal.signal(number, signal.default_int_handler)  # KeyboardInterrupt

    server = None
    try:
        say(f"vllm serve {' '.join(arguments)} (its output: {LOG})")
        began = time.monotonic()
        server = start(["--host", HOST, *arguments])
        if not wait_until_healthy(server, url):
            status = server.returncode
            return fail_with_log(f"the server ended while starting, status {status}")
        say(f"serving at {url}/v1 after {time.monotonic() - began:.0f} s")
        print(f"question: {QUESTION}")
        print(f"answer:   {ask(url, QUESTION)}", flush=True)
        say("serving until Ctrl-C")
        status = server.wait()
        return fail_with_log(f"the server ended by itself, status {status}")
    except urllib.error.HTTPError as error:
        return fail_with_log(f"{error}: {error.read().decode(errors='replace')}")
    except OSError as error:
        return fail_with_log(f"no answer: {error}")
    except KeyboardInterrupt:
        say("stopping")
        return 0
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        if server is not None:
            stop(server)


if __name__ == "__main__":
    sys.exit(main())
