"""What one of several processes does for all, and which ranks have died."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch.distributed as dist

from tecafn.core.errors import UserError
from tecafn.core.parallel import rank, world_size

Answer = TypeVar("Answer")

# (machine, process id) of every rank, once they have met.
_peers: list[tuple[str, int]] = []


def on_rank_0(action: Callable[[], Answer]) -> Answer:
    """Do something on rank 0 alone; every rank gets its answer, or its mistake.

    Looking at a directory and deciding what to do is done by one, because the others might look
    when it has been written to already. A collective call.

    Args:
        action: gives something that can be pickled.

    Raises:
        UserError: rank 0's, on every rank; without it the others would wait for rank 0. What the
            system refused (a full disk) becomes one, too.

    Example:
        >>> on_rank_0(lambda: "decided")
        'decided'
    """
    if world_size() == 1:
        return action()
    outcome: list[object] = [None, ""]
    if rank() == 0:
        try:
            outcome = [action(), ""]
        except UserError as error:
            outcome = [None, str(error)]
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            outcome = [None, f"{what}{error.strerror or error}"]
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1]:
        raise UserError(str(outcome[1]))
    return cast(Answer, outcome[0])


def remember_peers() -> None:
    """Note which process every rank is, to say later which one died. A collective call."""
    _peers.clear()
    if world_size() > 1:
        mine = (socket.gethostname(), os.getpid())
        everybody: list[tuple[str, int]] = [mine] * world_size()
        dist.all_gather_object(everybody, mine)
        _peers.extend(everybody)
        atexit.register(leave_process_group)


def leave_process_group() -> None:
    """Leave the other processes, so that this one can end; done at its end once peers have met.

    Gloo's threads release tensors, which needs the GIL. One that is still at it while the
    interpreter shuts down aborts the process, after all its work is done.

    Example:
        >>> leave_process_group()  # alone there is nobody to leave
    """
    _peers.clear()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def dead_peers() -> list[int]:
    """Ranks whose process on this machine is gone; what happens on others cannot be seen."""
    here = socket.gethostname()
    return [
        number
        for number, (machine, process) in enumerate(_peers)
        if machine == here and not _is_alive(process)
    ]


def _is_alive(process: int) -> bool:
    """Is it there, and not only as a corpse that its launcher has not yet buried?"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # "pid (name) state ..."; the name may hold spaces and brackets. Linux alone has the file.
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return state.rpartition(")")[2].split()[0] not in ("Z", "X")
