"""How the threads of arithmetic wait for each other, and how many things a machine does at once.

Imports nothing: it must come before torch.

OpenMP's threads share thousands of small operations per training step, and between two of them they
spin: they ask again and again whether there is more to do, for some milliseconds. Where another
process holds one of the cores, the thread that should come to the meeting point does not run, and
all others spin until the scheduler has given it its turn: a step takes tens of times as long.
Threads that sleep while they wait give up their core, and cost some microseconds to be woken.

The libraries read these variables once, when they are loaded. So they are set when ``tecafn`` is
imported, as long as torch is not. Processes that this one starts inherit them.
"""

from __future__ import annotations

import os
import sys

# GNU's, LLVM's and Intel's OpenMP all obey the first; the others are GNU's and Intel's own.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
NUMBER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Set beside NUMBER by whoever shares the cores out, and does not mind fewer threads.
AT_MOST = "TECAFN_THREADS_AT_MOST"


def wait_asleep() -> bool:
    """Let threads sleep while they wait, unless a variable of the user's says how they shall.

    Returns:
        Is it this call that has decided? It has not where torch is loaded already.
    """
    if "torch" in sys.modules or any(name in os.environ for name in WAITING):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True


def user_chose_number() -> bool:
    """Does the environment say how many threads there shall be, and not only at most?"""
    return AT_MOST not in os.environ and any(name in os.environ for name in NUMBER)


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(system: str = "/") -> int | None:
    """Main memory that this process may use; None where the machine does not say.

    Args:
        system: where ``proc`` and ``sys`` are.
    """
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # AttributeError: not on Windows
        return None
    return min([whole, *_limits_of_groups(system)])


def _limits_of_groups(system: str) -> list[int]:
    """Limits that a container or batch system has set (control groups of Linux, version 2)."""
    try:
        with open(os.path.join(system, "proc/self/cgroup"), encoding="ascii") as file:
            name = next((one[3:].strip() for one in file if one.startswith("0::")), "/")
    except OSError:
        return []
    limits = []
    parts = [part for part in name.split("/") if part]
    for depth in range(len(parts) + 1):  # that of a group holds for all within it
        path = os.path.join(system, "sys/fs/cgroup", *parts[:depth], "memory.max")
        try:
            with open(path, encoding="ascii") as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # ValueError: "max", no limit
            continue
    return limits
