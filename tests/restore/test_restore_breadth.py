"""Kinds of state, one after the other: each case of the programs tests/targets/restore_cases_*.c sets up one, is captured and restored, and verifies
itself. As root and as an ordinary user; killed before it is restored, and running on beside two that are restored from the same capture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TARGETS, compile_target, home_of_nobody
from tests.restore.cases import WAYS, Outcome
from tests.restore.reviving import capture, revive
from vcsimg.errors import RestoreError

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = {
    name: program
    for program in ("memory", "files", "signals", "threads", "waits", "sockets", "processes")
    for name in re.findall(r"^CASE\((\w+)\)", (TARGETS / f"restore_cases_{program}.c").read_text(), re.MULTILINE)
}
"""The program of each case."""
USERS = ("root", "nobody") if os.getuid() == 0 else ("ordinary",)
AT_ONCE = 3

PRIVILEGED = {
    "tcp_pair_addresses": "the connection has other addresses than",  # those of one that has just ended are the kernel's for a minute
    "tcp_pair_full": "were not captured",  # what one end has sent and the other not taken: TCP_REPAIR of tcp(7), CAP_NET_ADMIN
    "proc_dumpable": "it is not dumpable",  # ptrace(2): only for those with CAP_SYS_PTRACE
}
"""What an ordinary user cannot have, and what says so: the refusal, the note, or, where the program cannot even make it, its own words."""

TAKEN = {
    # Internet sockets, and abstract addresses: all restored processes are in the network namespace of whoever restores.
    r"its address \S+ cannot be had: Address already in use": (
        "unix_listening_abstract", "unix_connected_bound_client", "udp_queued_source", "udp_queued_source_gone", "udp_connected_pair",
        "udp_unbound_autobound", "udp6", "tcp_listening", "tcp_bound_only", "tcp_listener_with_connections", "tcp6_pair", "bpf_filter",
        "sock_rare_options", "sock_ipv4_client_of_ipv6_server", "sock_shut_down", "sock_not_accepted_yet",
    ),
    # A path leads to one socket.
    "another process listens at|there is something else at": (
        "unix_listening_path", "unix_connected_path", "unix_dgram_bound_queue", "unix_dgram_connected_server", "unix_dgram_client_first",
        "unix_bound_not_listening", "unix_unlinked_and_connected_to_itself",
    ),
    # A FIFO is one pipe for all who open its path.
    "others have it open": ("fifo_two_ends", "fifo_data"),
    # A lock on a file is one process's.
    r"lock: .*Resource temporarily unavailable": (
        "file_flock_ex", "file_posix_locks", "file_posix_locks_two_processes", "file_ofd_lock", "file_lock_blocked_waiter",
    ),
}  # fmt: skip
"""What there is but once while the captured process lives, and what refuses it to others."""

DIFFERENT_BESIDE = {
    "tcp_pair_addresses": "the connection has other addresses than",
    "netlink_bound": "its address .* is in use, it has another one",
}
"""What comes back in another way while the captured process has it, with the note that says so."""

FIRST_OF_ALL = frozenset(
    (
        # They write into a file at a path, or give one a name; the first finds it as it was.
        "mem_file_shared", "mem_file_shared_ro", "mem_shm_posix", "file_append", "file_tmpfile_link",
        # That others open the file breaks the captured process's lease.
        "file_lease_write",
        # A capture reads all pages: of those that were never touched, mincore(2) says then that they are there.
        "mem_mlock_onfault",
    )
)  # fmt: skip
"""Of three at once only the one that goes on first verifies itself: they share what is at a path, or see that others do."""


class Batches:
    """Runs cases, AT_ONCE at a time, as one user after the other, and reads what becomes of them."""

    def __init__(self, folder: Path, names: dict[str, list[str]]) -> None:
        self._folder = folder
        self._names = names
        self._running: dict[str, list[tuple[subprocess.Popen[str], Path]]] = {}
        self._found: dict[tuple[str, str], dict[str, Outcome]] = {}

    def outcome(self, user: str, name: str, way: str) -> Outcome:
        if user not in self._running:
            self._start(user)
        worker = self._names[user].index(name) % AT_ONCE
        process, errors = self._running[user][worker]
        assert process.stdout is not None
        while (user, name) not in self._found:
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the cases were not run to their end: {errors.read_text()}")
            done, ways = json.loads(line)
            self._found[user, done] = {key: Outcome(**value) for key, value in ways.items()}
        return self._found[user, name][way]

    def _start(self, user: str) -> None:
        home = self._folder / user
        home.mkdir()
        command = [sys.executable, "-m", "tests.restore.cases"]
        if user == "nobody":
            home = home_of_nobody(home)
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *command]
        words = [f"{compile_target(f'restore_cases_{PROGRAMS[name]}')}:{name}" for name in self._names[user]]
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        self._running[user] = []
        for worker in range(AT_ONCE):
            path = self._folder / f"{user}.{worker}"
            with path.open("w") as errors:
                process = subprocess.Popen(
                    [*command, str(home), *words[worker::AT_ONCE]],
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    cwd=ROOT,
                    env=environment,
                )
            self._running[user].append((process, path))

    def close(self) -> None:
        for process, _ in (one for running in self._running.values() for one in running):
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def outcome(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str, str], Outcome]]:
    """outcome(user, name, way): what has become of a case. Those that were selected run beside one another."""
    names: dict[str, list[str]] = {user: [] for user in USERS}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == "test_case" and item.module is request.module:
            user, name = str(item.callspec.params["user"]), str(item.callspec.params["name"])
            if name not in names[user]:
                names[user].append(name)
    batches = Batches(tmp_path_factory.mktemp("cases"), names)
    yield batches.outcome
    batches.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("user", USERS)
def test_case(user: str, name: str, way: str, outcome: Callable[[str, str, str], Outcome]) -> None:
    found = outcome(user, name, way)
    if name in PRIVILEGED and user != "root":
        _is_said(found, PRIVILEGED[name])
    elif way == "beside" and name in DIFFERENT_BESIDE:
        _is_said(found, DIFFERENT_BESIDE[name])
    elif way == "beside" and (reason := next((reason for reason, names in TAKEN.items() if name in names), None)):
        assert found.kind == "refused", found
        assert re.search(reason, found.text), found
    elif way == "beside" and name in FIRST_OF_ALL:
        assert found.kind == "ended", found
        assert found.text.splitlines()[0] == "verified 42", found
    else:
        assert found.verified, found


def _is_said(found: Outcome, reason: str) -> None:
    """Never silently another: refused, not possible, or with a note."""
    assert found.kind in ("unable", "refused") or found.notes, found
    assert re.search(reason, "\n".join([found.text if found.kind != "ended" else "", *found.notes])), found


def test_the_lists_name_cases() -> None:
    named = [*PRIVILEGED, *DIFFERENT_BESIDE, *FIRST_OF_ALL, *(name for names in TAKEN.values() for name in names)]
    assert [name for name in named if name not in PROGRAMS] == []


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
