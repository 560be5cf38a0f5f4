import io
import sys

import pytest

from tecafn.training.display import Display


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def show(progress: bool) -> None:
    with Display(num_batches=12, max_epochs=3, monitor="mae", progress=progress) as display:
        display.epoch(epoch=0, loss=1.5, valid={"mae": 0.8125}, best=True, seconds=2.0)
        display.step(epoch=1, phase="main", batch=2, num_batches=4, done=6, total=1.25)
        display.message("warning: [bold] is no markup")


def test_a_terminal_gets_a_bar_with_epoch_batch_loss_and_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    show(progress=True)
    shown = terminal.getvalue()
    for part in (
        "epoch 2/3",
        "batch 2/4 (main)",
        "loss 1.2500",
        "valid mae 0.8125",
        "[bold] is no",
    ):
        assert part in shown
    assert "best so far" not in shown


@pytest.mark.parametrize(("terminal", "progress"), [(True, False), (False, True)])
def test_without_terminal_or_wish_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, progress: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show(progress=progress)
    assert stream.getvalue().splitlines() == [
        "epoch 1/3: loss 1.5000, valid mae 0.8125, best so far, 2.0 s",
        "warning: [bold] is no markup",
    ]
