"""Kinds of state, one after the other: each case of the programs tests/targets/restore_cases_*.c sets up one, is captured, killed and restored, and
verifies itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TARGETS, compile_target, home_of_nobody
from tests.restore.cases import outcome
from tests.restore.reviving import capture, revive
from vcsimg.errors import RestoreError

PROGRAMS = ("memory", "files", "signals", "threads", "waits", "sockets", "processes")
CASES = [
    (program, name)
    for program in PROGRAMS
    for name in re.findall(r"^CASE\((\w+)\)", (TARGETS / f"restore_cases_{program}.c").read_text(), re.MULTILINE)
]
PRIVILEGED = frozenset(
    (
        "unix_credentials_queued",
        "tcp_pair_addresses",
        "tcp_pair_full",
        "file_mode_only_owner",
        "file_readonly_writable_fd",
        "proc_dumpable",
    )
)
"""What an ordinary user cannot have: sending in another's name, connections with the addresses of those that have just ended, …"""
FOR_EVERYBODY = re.compile(
    r"unix_|tcp_|udp_|inotify_|pidfd_|aio_|mem_memfd|mem_shm|mem_mlock|file_deleted|file_.*lock|thr_main|proc_session_"
)
"""What is read or made in other ways without privilege."""


@pytest.mark.parametrize(("program", "name"), CASES, ids=[name for _, name in CASES])
def test_case(program: str, name: str, tmp_path: Path) -> None:
    if os.getuid() and name in PRIVILEGED:
        pytest.skip("needs privilege")
    assert outcome(compile_target(f"restore_cases_{program}"), name, tmp_path) == ("verified\n", 42)


def test_as_an_ordinary_user(tmp_path: Path, as_nobody: list[str]) -> None:
    home = home_of_nobody(tmp_path)
    wanted = [(compile_target(f"restore_cases_{program}"), name) for program, name in CASES if FOR_EVERYBODY.match(name)]
    words = [f"{program}:{name}" for program, name in wanted if name not in PRIVILEGED]
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(root)}
    command = [*as_nobody, sys.executable, "-m", "tests.restore.cases", str(home), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=200)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


REFUSED = {
    "refused_secret_memory": "memfd_secret",
    "refused_passed_pipe": "open nowhere else",
    "refused_backlog_with_data": "not accepted yet",
    "refused_backlog_of_the_gone": "not accepted yet",
    "refused_namespace": "cannot be restored",
    "refused_userfaultfd": "cannot be restored",
    "refused_network_namespace": "it was in another one than vcsimg",
    "refused_mounts": r"/mnt \(tmpfs\)",
    "refused_children_elsewhere": "its children would be made in another one",
    "refused_thread_with_own_files": "does not share them with the main thread",
    "refused_keyring": "the keys in it",
    "refused_segments": "segments",
    "refused_confined": "Landlock",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_come_back_is_refused_by_name(name: str, tmp_path: Path) -> None:
    captured = capture([compile_target("restore_refused"), name], tmp_path)
    captured.kill()
    if captured.ready != "ready":
        pytest.skip("not on this kernel")
    with pytest.raises(RestoreError, match=REFUSED[name]):
        revive(captured.repository, captured.commit)
    captured.repository.close()
