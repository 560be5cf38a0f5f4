import json
from pathlib import Path

import pytest

from tecafn.core.errors import UserError
from tecafn.training.events import EventLog


def lines(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with EventLog(tmp_path, tensorboard=False) as events:
        events.write({"event": "start"})
        assert lines(tmp_path) == [{"event": "start"}]


def test_nan_becomes_null_so_that_every_line_is_json(tmp_path: Path) -> None:
    with EventLog(tmp_path, tensorboard=False) as events:
        events.write({"event": "x", "values": {"a": float("nan"), "b": [float("inf"), 1.0]}})
    assert lines(tmp_path) == [{"event": "x", "values": {"a": None, "b": [None, 1.0]}}]


def test_rewinding_forgets_later_lines_and_goes_on_after_the_earlier(tmp_path: Path) -> None:
    with EventLog(tmp_path, tensorboard=False) as events:
        events.write({"event": "a"})
        position = events.position()
        events.write({"event": "b"})
    with EventLog(tmp_path, tensorboard=False) as events:
        events.rewind(position, step=1)
        events.write({"event": "c"})
    assert lines(tmp_path) == [{"event": "a"}, {"event": "c"}]


def test_lines_lost_before_the_checkpoint_are_told(tmp_path: Path) -> None:
    with EventLog(tmp_path, tensorboard=False) as events:
        events.write({"event": "a"})
        events.write({"event": "b"})
        position = events.position()
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    with EventLog(tmp_path, tensorboard=False) as events:
        events.rewind(position, step=1)
    assert [event["event"] for event in lines(tmp_path)] == ["a", "warning"]


def test_tensorboard_has_every_named_term_at_its_step(tmp_path: Path) -> None:
    step = {"event": "step", "step": 7, "epoch": 0, "phase": "main", "total": 3.0}
    with EventLog(tmp_path) as events:
        events.write(
            {
                **step,
                "losses": {"task": 1.0, "bicon": 2.0},
                "learning_rates": {"main": 0.5},
                "gradient_norm": 4.0,
            }
        )
        events.write({"event": "epoch", "epoch": 0, "step": 7, "valid": {"mae": 0.25}})
    (board,) = (tmp_path / "tensorboard").iterdir()
    assert scalars(board) == {
        ("loss/main/task", 7, 1.0),
        ("loss/main/bicon", 7, 2.0),
        ("loss/main/total", 7, 3.0),
        ("gradient_norm/main", 7, 4.0),
        ("learning_rate/main/main", 7, 0.5),
        ("valid/mae", 7, 0.25),
    }


def scalars(path: Path) -> set[tuple[str, int, float]]:
    """Read TFRecord frames: length (8 bytes), its check (4), the event, its check (4)."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), set()
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found |= {(v.tag, event.step, v.simple_value) for v in event.summary.value}
    return found


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        EventLog(tmp_path / "file")
