"""On CPU: memory that a step has freed stays with the process, for the next one.

glibc gives the top of its heap back to the system as soon as it is free, and maps large pieces one by one. So a step of
many positions would have its activations' pages mapped and zeroed anew, which is a fifth of its forward's time.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 512 << 20  # bytes of free memory at the heap's top
LARGEST = 32 << 20  # bytes of a piece that lies on the heap: the most there may be
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # how a user says otherwise


def keep_freed_memory() -> None:
    """For this process, unless the environment says otherwise. Nothing where malloc is not glibc's."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not any(name in os.environ for name in OWN):
        libc.mallopt(MMAP_THRESHOLD, LARGEST)
        libc.mallopt(TRIM_THRESHOLD, KEPT)
