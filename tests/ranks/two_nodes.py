"""Two nodes on this machine, a rank on each; run by test_two_nodes.py as the first process of namespaces of its own.

Arguments: the seed of the golden cases to ask for, and perhaps `all`, for all of them.

this namespace                         a second one, with a /dev/shm of its own
10.0.0.1  node 1: head, server, rank   10.0.0.2  node 2: rank
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS), str(TESTS / "golden")]

import golden_cases  # noqa: E402
from cluster import ENVIRONMENT, Node  # noqa: E402
from common import CHECKPOINTS, ROOT  # noqa: E402
from sampling import Sampling  # noqa: E402
from served import Server  # noqa: E402
from server_process import stop, wait_until_healthy  # noqa: E402

SCRIPT = str(ROOT / "examples/multi_gpu/two_nodes.sh")
FIRST, SECOND = "10.0.0.1", "10.0.0.2"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def second_namespace() -> tuple[str, ...]:
    """Make it and join it to this one by a cable; the command that runs another one in it."""
    inside = "mount -t tmpfs tmpfs /dev/shm && ip link set lo up && echo up && exec sleep infinity"
    holder = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", inside], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"up\n"
    within = ("nsenter", f"--target={holder.pid}", "--net", "--mount", "--")
    run(*f"ip link add node1 type veth peer name node2 netns {holder.pid}".split())
    for command, interface, address in ((), "node1", FIRST), (within, "node2", SECOND):
        run(*command, *f"ip address add {address}/24 dev {interface}".split())
        run(*command, *f"ip link set {interface} up".split())
    return within


def main(sampling: Sampling) -> None:
    run(*"ip link set lo up".split())
    within = second_namespace()
    with ExitStack() as at_end, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        cpus = "--num-cpus=1"
        head = Node(SCRIPT, "head", FIRST, cpus, f"--temp-dir={folder}/ray", "--include-dashboard=false")
        at_end.callback(head.stop)
        second = Node(*within, SCRIPT, "join", FIRST, SECOND, cpus)
        at_end.callback(second.stop)
        server = Server("http://127.0.0.1:8000", Path(folder, "server.log"), Path(folder, "trace.jsonl"))
        options = f"--tensor-parallel-size 2 --dtype float32 --max-model-len 512 --served-model-name {server.model}"
        options += f" --kv-cache-memory-bytes {1 << 28} --dllm-hidden-cache true --dllm-trace {server.trace_file}"
        with open(server.log_file, "w") as log:
            command = [SCRIPT, "serve", FIRST, str(CHECKPOINTS / "tiny-llada"), *options.split()]
            server.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
            )
        wait_until_healthy(server)
        try:
            ranks = [p for p in second.processes() if p.cmdline()[0].startswith("ray::RayCPUWorkerProc")]
            assert len(ranks) == 1, f"{len(ranks)} ranks on the second node"
            print("a rank on each node", flush=True)
            every = golden_cases.cases("tiny-llada")
            cases = sampling.take(every, lambda case: case.settings["dllm_cache"])  # one of each policy
            with ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda case: case.ask(server), cases))
            sampling.check([c.difference(*a) for c, a in zip(cases, answers, strict=True)])
            print(f"{len(cases)} answers equal", flush=True)
        finally:
            stop(server)


if __name__ == "__main__":
    main(Sampling(int(sys.argv[1]), everything=sys.argv[2:] == ["all"]))
