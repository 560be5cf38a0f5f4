"""How a process ends: signals, lost peers, too little memory, and what is said then."""

from __future__ import annotations

import errno
import signal
import sys
import time

from tecafn.core.errors import UserError

INTERRUPTED = 130
TERMINATED = 143
# How long a process that is not the first waits with its complaint; see complain.
_GRACE_SECONDS = 3.0


class Terminated(BaseException):
    """SIGTERM: a launcher or a scheduler wants this process to end."""


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated


def raise_at_sigterm() -> None:
    """From now on SIGTERM is ``Terminated``; for a process that is the command's own."""
    signal.signal(signal.SIGTERM, _terminate)


def _on_sigterm(action: signal.Handlers) -> None:
    """From now on; a process that is not the command's own keeps what it had."""
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, action)


def complain(line: str) -> None:
    """One line on stderr; of several processes the first is the one to say it.

    The others most often have the same to say, and their launcher ends them as soon as the first
    has gone. One that is still there after a while was alone with its trouble.
    """
    from tecafn.experiments.launched import launched

    try:
        started = launched()
    except UserError:  # which is what is being said
        started = None
    if started and started.rank:
        _on_sigterm(signal.SIG_DFL)
        time.sleep(_GRACE_SECONDS)
        line = f"rank {started.rank} of {started.num_processes}: {line}"
    print(line, file=sys.stderr, flush=True)


def is_out_of_memory(error: Exception) -> bool:
    """Python's, torch's on a GPU, torch's on the CPU (which has no class of its own)."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def out_of_memory(command: str, error: BaseException) -> str:
    """What to do about it, by command; what held most is in the error's notes.

    Example:
        >>> out_of_memory("predict", MemoryError())
        'error: out of memory; give it a machine, or a --device, with more'
    """
    what = "; ".join(["error: out of memory", *getattr(error, "__notes__", ())])
    if command == "train":
        return (
            f"{what}; lower max_frames, max_text_tokens or training.batch_size (a larger "
            "training.accumulate makes up for it) and begin a new run; where memory was short for "
            "a while only, --resume continues this one"
        )
    return f"{what}; give it a machine, or a --device, with more"


def lost_others(error: BaseException) -> bool:
    """Did a process of the same run go away, as its peers' network library puts it?"""
    kind = type(error).__name__
    # gloo raises plain RuntimeErrors; NCCL's and the store's are DistBackendError and the like.
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or kind.startswith("Dist"))


def _who_died(seconds: float) -> str:
    """Names the dead ranks, waiting for the system to notice them; empty if none is known."""
    if "torch" not in sys.modules:
        return ""
    from tecafn.training.ranks import dead_peers

    until = time.monotonic() + seconds
    while not (dead := dead_peers()) and time.monotonic() < until:
        time.sleep(0.05)
    names = ", ".join(map(str, dead))
    return names and (f"rank {names} has died" if len(dead) == 1 else f"ranks {names} have died")


def report_loss(command: str, *, seconds: float, otherwise: str) -> None:
    """Say at once who is missing: the launcher is about to end this process, too."""
    from tecafn.experiments.launched import launched

    _on_sigterm(signal.SIG_IGN)
    started = launched()
    what = _who_died(seconds) or otherwise
    how = "start it again"
    if command == "train":
        how = "the last checkpoint stands; continue with --resume"
        if started.num_processes > 1:
            how += f" and {started.num_processes} processes"
    where = ""
    if started.num_processes > 1:
        where = f"rank {started.rank} of {started.num_processes}: "
    print(f"{where}error: {what}; {how}", file=sys.stderr, flush=True)
