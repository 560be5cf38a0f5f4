"""The commands of the pages on serving run as they stand, against a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import serving_stub
from typer.testing import CliRunner

from tecafn import cli
from tecafn.server.settings import PORT, ServerSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("serve.md", "moving-from-hume.md")


def _blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_the_requests_of_a_page_are_answered(
    served: serving_stub.Served, page: str, tmp_path: Path
) -> None:
    for name in ("talk.mp4", "clip.mp4"):
        (tmp_path / name).write_bytes(b"clip")
    program = "\n".join(block for block in _blocks(page, "bash") if "curl" in block)
    program = program.replace(f"http://127.0.0.1:{PORT}", served.url)
    program = re.sub(r"\bcurl ", "curl -sS --fail-with-body ", program)
    first = re.search(r"^curl .*-F .*?/v1/jobs$", program, re.MULTILINE)
    env = dict(os.environ)
    if first is not None:
        env["JOB"] = json.loads(_bash(first[0], tmp_path, env))["job_id"]
    _bash(program, tmp_path, env)


def _bash(program: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", program], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_the_commands_of_a_page_start_a_server_or_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[tuple[str, ServerSettings]] = []

    def start(kind: str) -> Any:
        return lambda settings: started.append((kind, settings))

    monkeypatch.setattr("tecafn.server.running.serve", start("server"))
    monkeypatch.setattr("tecafn.server.worker.run_worker", start("worker"))
    commands = [
        line for page in PAGES for one in _blocks(page, "console") for line in one.split("\n")
    ]
    for command in filter(None, commands):
        result = CliRunner().invoke(cli.app, command.split()[1:])
        assert result.exit_code == 0, result.output
    assert [kind for kind, _ in started] == ["server", "server", "worker"]
    assert started[1][1].database_url == started[2][1].database_url
