import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tecafn.core.errors import UserError
from tecafn.core.weights import load_module, save_module
from tecafn.training import checkpoint
from tecafn.training.checkpoint import Checkpoints


def layer(value: float) -> nn.Linear:
    module = nn.Linear(2, 3)
    nn.init.constant_(module.weight, value)
    nn.init.constant_(module.bias, value)
    return module


def write(checkpoints: Checkpoints, step: int, best_step: int | None = None) -> None:
    checkpoints.write(
        step,
        scheme=layer(step),
        optimizers={"main/0/exp_avg": torch.full((2,), float(step))},
        state={"step": step, "best_step": best_step},
    )


class Tied(nn.Module):
    """Tied weights, two views of one memory, a buffer without elements, and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.output = nn.Linear(3, 4, bias=False)
        self.output.weight = self.embedding.weight
        memory = torch.arange(6.0)
        self.register_buffer("front", memory[:3])
        self.register_buffer("whole", memory)
        self.register_buffer("across", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("also_empty", torch.zeros(0))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("seen", torch.tensor([True, False]))


def test_tied_weights_views_and_buffers_come_back(tmp_path: Path) -> None:
    saved, loaded = Tied(), Tied()
    for tensor in (loaded.front, loaded.across, loaded.count):
        tensor.zero_()
    save_module(saved, tmp_path / "tied.safetensors")
    load_module(loaded, tmp_path / "tied.safetensors")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.output.weight is loaded.embedding.weight


def test_other_widths_name_parameter_expected_and_got(tmp_path: Path) -> None:
    save_module(nn.Sequential(nn.Linear(74, 30)), tmp_path / "a.safetensors")
    with pytest.raises(UserError) as caught:
        load_module(nn.Sequential(nn.Linear(5, 30)), tmp_path / "a.safetensors")
    message = str(caught.value)
    assert "'0.weight' expected shape (30, 5), got (30, 74)" in message
    assert "takes 74 columns, the data has 5" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("saved", "loading", "message"),
    [
        (nn.Linear(2, 3, bias=False), nn.Linear(2, 3), "lacks parameter 'bias'"),
        (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), "has parameter 'bias', which"),
        (nn.Linear(2, 3), nn.Linear(2, 3).double(), "expected type float64, got float32"),
        (nn.Linear(2, 3), nn.Linear(2, 4), r"expected shape \(4, 2\), got \(3, 2\)$"),
    ],
)
def test_loading_is_strict(
    tmp_path: Path, saved: nn.Module, loading: nn.Module, message: str
) -> None:
    save_module(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message):
        load_module(loading, tmp_path / "a.safetensors")


def test_a_truncated_weights_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_module(nn.Linear(2, 3), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="cannot read weights") as caught:
        load_module(nn.Linear(2, 3), path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_gives_back_what_was_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints
    assert checkpoints.newest() == (None, [])
    write(checkpoints, 5)
    scheme = layer(0)
    optimizers, state = checkpoints.read(5, scheme=scheme)
    assert checkpoints.newest() == (5, [])
    assert float(scheme.weight.detach().mean()) == 5
    assert torch.equal(optimizers["main/0/exp_avg"], torch.full((2,), 5.0))
    assert state == {"step": 5, "best_step": None}


def test_the_newest_two_and_their_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5)):
        if best == step:
            checkpoints.write_best(step, layer(step))
        write(checkpoints, step, best)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000004", "00000005", "best"]
    assert sorted(p.name for p in (tmp_path / "best").iterdir()) == ["00000003", "00000005"]
    scheme = layer(0)
    checkpoints.read_best(3, scheme)
    assert float(scheme.weight.detach().mean()) == 3


@pytest.mark.parametrize("name", ["scheme.safetensors", "optimizers.safetensors", "trainer.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_broken_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, name: str, damage: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    write(checkpoints, 2)
    path = checkpoints.path(2) / name
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        changed = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes(changed if damage == "flip" else data[:-1])
    step, skipped = checkpoints.newest()
    assert step == 1
    assert len(skipped) == 1
    assert name in skipped[0]
    assert "00000002" in skipped[0]


@pytest.mark.parametrize("content", ["", "[1]", "{}", None])
def test_a_checkpoint_without_usable_hashes_is_broken(tmp_path: Path, content: str | None) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    write(checkpoints, 2)
    path = checkpoints.path(2) / "hashes.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert checkpoints.newest()[0] == 1


def test_no_intact_checkpoint_is_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    (checkpoints.path(1) / "trainer.json").write_text("{}")
    with pytest.raises(UserError, match=r"no checkpoint can be resumed: .*trainer\.json") as caught:
        checkpoints.newest()
    assert "\n" not in str(caught.value)


def test_a_broken_checkpoint_goes_when_the_run_writes_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 9):
        write(checkpoints, step)
    (checkpoints.path(9) / "trainer.json").write_text("{}")
    (tmp_path / ".writing-00000007").mkdir()
    write(checkpoints, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000001", "00000002"]


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    saved = vars(checkpoint)["save_file"]

    def fails_halfway(tensors: Any, path: Path, *args: Any, **options: Any) -> None:
        saved(tensors, path, *args, **options)
        if path.name == "optimizers.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fails_halfway)
    with pytest.raises(UserError, match="00000002: No space left on device") as caught:
        write(checkpoints, 2)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]
    assert checkpoints.newest() == (1, [])


def test_rewriting_a_checkpoint_that_fails_keeps_the_one_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)

    def fails(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.raises(UserError, match="No space left"):
        write(checkpoints, 1)
    assert checkpoints.newest() == (1, [])


def test_a_checkpoint_of_another_version_is_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    path = checkpoints.path(1) / "trainer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(UserError, match="another version"):
        checkpoints.read(1, scheme=layer(0))
