"""What one process does for all, and who is seen to be dead."""

import atexit
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from tecafn.core.errors import UserError
from tecafn.training import ranks
from tecafn.training.ranks import dead_peers, on_rank_0, remember_peers


def test_alone_it_is_a_plain_call_whose_errors_keep_their_kind() -> None:
    assert on_rank_0(lambda: 3) == 3
    with pytest.raises(FileNotFoundError):
        on_rank_0(lambda: os.stat("/no/such/place"))


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    calls: list[int] = []

    def decide() -> str:
        calls.append(rank)
        return "decided"

    said = [on_rank_0(decide), str(len(calls))]
    for problem in (UserError("it is full"), OSError(28, "No space left on device", "there")):

        def fail(problem: Exception = problem) -> None:
            raise problem

        try:
            on_rank_0(fail)
        except UserError as error:
            said.append(str(error))
    at_the_end = Path(folder) / f"{rank} at the end"
    # The process's last act, later than what is registered after it.
    atexit.register(lambda: at_the_end.write_text(f"in a group: {dist.is_initialized()}"))
    remember_peers()
    said.append(f"{len(ranks._peers)} peers, dead {dead_peers()}")
    (Path(folder) / str(rank)).write_text("\n".join(said))


def test_answers_and_mistakes_of_rank_0_reach_every_rank(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    shared = ["it is full", "there: No space left on device", "2 peers, dead []"]
    assert (tmp_path / "0").read_text().splitlines() == ["decided", "1", *shared]
    assert (tmp_path / "1").read_text().splitlines() == ["decided", "0", *shared]
    for rank in (0, 1):  # else gloo's threads may abort a process that has done its work
        assert (tmp_path / f"{rank} at the end").read_text() == "in a group: False"


def test_a_killed_peer_is_dead_before_and_after_it_is_buried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        peers = [(here, os.getpid()), (here, other.pid), ("another machine", other.pid)]
        monkeypatch.setattr(ranks, "_peers", peers)
        assert dead_peers() == []
        other.kill()
        # Nobody has waited for it yet: it is a zombie, which the system still knows.
        deadline = time.monotonic() + 10
        while not dead_peers() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert dead_peers() == [1]
        other.wait()
        assert dead_peers() == [1]
