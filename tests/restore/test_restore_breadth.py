"""Kinds of state, one after the other: each case of the programs tests/targets/restore_cases_*.c sets up one, is captured and restored, and verifies
itself. As root and as an ordinary user; killed before it is restored, and running on beside two that are restored from the same capture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TARGETS, compile_target
from tests.restore.batches import USERS, Found, batches
from tests.restore.cases import WAYS, Outcome
from tests.restore.reviving import capture, revive
from vcsimg.errors import RestoreError

PROGRAMS = {
    name: program
    for program in ("memory", "files", "signals", "threads", "waits", "sockets", "processes")
    for name in re.findall(r"^CASE\((\w+)\)", (TARGETS / f"restore_cases_{program}.c").read_text(), re.MULTILINE)
}
"""The program of each case."""

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
        "unix_listening_path", "unix_backlog_full", "unix_connected_path", "unix_dgram_bound_queue", "unix_dgram_connected_server", "unix_dgram_client_first",
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


EVERY_WAY = len(USERS) == 1 or "VCSIMG_SOAK" in os.environ
CASES = [
    (user, name, way)
    for turn, user in enumerate(USERS)
    for index, name in enumerate(PROGRAMS)
    for number, way in enumerate(WAYS)
    if EVERY_WAY or (turn + index + number) % len(WAYS) == 0
]
"""Each case as each user, and in each way; as both users in both ways (three minutes) in `make soak`."""


@pytest.fixture(scope="module")
def outcome(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    yield from batches(request, tmp_path_factory, lambda name: [compile_target(f"restore_cases_{PROGRAMS[name]}"), name])


@pytest.mark.parametrize(("user", "name", "way"), CASES)
def test_case(user: str, name: str, way: str, outcome: Found) -> None:
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
    "refused_long_path": "its path is too long",
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
