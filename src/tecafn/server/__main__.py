"""A server's own worker; ``tecafn serve --worker`` is one that somebody starts himself."""

import os

if __name__ == "__main__":
    from tecafn.server.settings import SETTINGS, from_json
    from tecafn.server.worker import run_worker

    run_worker(from_json(os.environ.pop(SETTINGS)), is_child=True)
