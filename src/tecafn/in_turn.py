"""Several commands in one process, one after the other, until one fails.

``python -m tecafn.in_turn '["train", ...]' '["evaluate", ...]'``. A process for each would spend
seconds on the same imports, which is longer than a small network trains.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from tecafn.cli import main as run_command
from tecafn.exits import raise_at_sigterm


def main(commands: Sequence[Sequence[str]]) -> int:
    """Run each command with its arguments.

    Returns:
        The exit code of the first that fails, 0 if none does.
    """
    return next((code for arguments in commands if (code := run_command(arguments))), 0)


if __name__ == "__main__":
    raise_at_sigterm()
    sys.exit(main([json.loads(argument) for argument in sys.argv[1:]]))
