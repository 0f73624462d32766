"""Process trees: parents and children, sessions, groups, and the dead that were not waited for.

A session cannot be entered, only founded or inherited: so a child that is in another session than its parent's own was made before the parent
founded that one, and is made so again. A process group whose leader is gone is founded by a process that ends again at once; so is a session,
whose members that one makes as its own siblings (CLONE_PARENT).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from vcsimg.errors import HostileImage, RestoreError
from vcsimg.image.region import RegionMap
from vcsimg.image.sections.family import SharedTable, Zombie
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Identity
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.kernel import ptrace
from vcsimg.kernel.clone import CLONE_FILES, CLONE_FS, CLONE_PARENT
from vcsimg.kernel.prctl_set import SET_NAME
from vcsimg.kernel.syscalls import NR
from vcsimg.restore.remote import Remote
from vcsimg.restore.sessions import Controls, control_of
from vcsimg.restore.skeleton import Skeleton

_FLAGS = {"files": CLONE_FILES, "fs": CLONE_FS, "io": 0, "semaphores": 0}
_WALL = 0x40000000
_RLIMIT_CORE = 4
_SIGSET_SIZE = 8


class Tree:
    """`skeletons`: in the order of the image, once made; also when that fails half way."""

    def __init__(self, snapshot: Snapshot, root: Skeleton, controls: Controls, notes: list[str], *, leader: bool) -> None:
        """`leader`: the root's session was founded outside of the image, and has the number that it had."""
        self.skeletons = [root]
        self._snapshot = snapshot
        self._notes = notes
        self._controls = controls
        self._leader = leader
        self._identities = {process.pid: _identity(process) for process in snapshot.processes}
        self._by_pid = {root.pid: root}
        self._sessions: dict[int, int] = {}
        """The session that each skeleton is in: 0 for the one outside."""
        self._passing: list[tuple[Skeleton, Zombie | None]] = []

    def make(self) -> None:
        """Raises RestoreError, HostileImage."""
        root = self.skeletons[0]
        self._sessions[root.pid] = 0
        self._populate(root)
        self.skeletons.sort(key=lambda skeleton: [process.pid for process in self._snapshot.processes].index(skeleton.pid))
        self._make_dead()
        self._make_groups()
        self._controls.foreground(self.skeletons)
        self._bury()

    def _populate(self, skeleton: Skeleton) -> None:
        """The children of a process, and theirs."""
        children = [process for process in self._snapshot.processes[1:] if process.parent == skeleton.pid]
        wanted = self._session(skeleton.pid)
        earlier = [child for child in children if self._is_earlier(child.pid, wanted, skeleton.pid)]
        for child in earlier:
            self._fork(skeleton, child)
        if wanted == skeleton.pid:
            skeleton.main.all([(NR["setsid"], ())], f"process {skeleton.pid} session")
            self._sessions[skeleton.pid] = skeleton.pid
            self._controls.take(skeleton)
        elif wanted != self._sessions[skeleton.pid]:
            self._notes.append(f"process {skeleton.pid} is in another session than it was")
        for child in children:
            if child not in earlier:
                self._fork(skeleton, child)
        for child in children:
            self._populate(self._by_pid[child.pid])

    def _is_earlier(self, pid: int, wanted: int, parent: int) -> bool:
        """Whether a child was made before its parent founded a session."""
        return wanted == parent and self._session(pid) not in (pid, parent)

    def _session(self, pid: int) -> int:
        """The session of a process; 0: one that was founded outside of the image, as that of the root."""
        session = self._identities[pid].session
        if session in self._identities:
            return session if self._identities[session].session == session else 0
        return session if session not in (0, self._identities[self.skeletons[0].pid].session) else 0

    def _dead_leader(self, parent: Skeleton, session: int, flags: int) -> Skeleton | None:
        """Who founds a session whose leader has ended: a child of this process. None if it was founded as the child of another one, or is
        one that exists here."""
        leader = next((skeleton for skeleton, _ in self._passing if skeleton.pid == session), None)
        if leader is None:
            buried = {zombie.pid: process.pid for process in self._snapshot.processes for zombie in _zombies(process)}
            if buried.get(session, parent.pid) != parent.pid or not 0 < session < 1 << 22:
                return None
            zombie = next((one for one in _zombies(parent.process) if one.pid == session), None)
            leader = parent.fork(
                _nobody(session, parent.pid), flags, zombie.exit_signal & 0xFF if zombie is not None else signal.SIGCHLD
            )
            self._passing.append((leader, zombie))
            leader.main.all([(NR["setsid"], ())], f"process {session} session")
            if zombie is not None:
                _call_it(leader.main, zombie.name)
            self._sessions[session] = session
        return leader if leader.process.parent == parent.pid else None

    def _fork(self, parent: Skeleton, child: Process) -> None:
        flags = 0
        for table in select(child.section("shared"), SharedTable):
            if table.table not in _FLAGS:
                raise RestoreError(f"process {child.pid}", f"it shares its {table.table} with process {table.process}")
            if _FLAGS[table.table] and table.process != parent.pid:
                raise RestoreError(f"process {child.pid}", f"it shares its {table.table} with one that is not its parent")
            flags |= _FLAGS[table.table]
        wanted = self._session(child.pid)
        if wanted not in (0, self._sessions[parent.pid]) and wanted not in self._identities:
            leader = self._dead_leader(parent, wanted, flags)
            if leader is not None:
                self._enter(leader.fork(child, flags | CLONE_PARENT, 0), wanted)
                return
        self._enter(parent.fork(child, flags, self._identities[child.pid].exit_signal & 0xFF), self._sessions[parent.pid])
        skeleton = self._by_pid[child.pid]
        inherited = control_of(parent.process)
        self._controls.drop(skeleton, inherited.device if inherited is not None and self._has_terminal(parent) else None)

    def _enter(self, skeleton: Skeleton, session: int) -> None:
        self.skeletons.append(skeleton)
        self._by_pid[skeleton.pid] = skeleton
        self._sessions[skeleton.pid] = session

    def _has_terminal(self, skeleton: Skeleton) -> bool:
        """Whether it has its controlling terminal already: a leader that is yet to found its session has not."""
        wanted = self._session(skeleton.pid)
        return wanted == self._sessions[skeleton.pid]

    # Groups

    def _make_groups(self) -> None:
        root = self.skeletons[0]
        outside = (self._identities[root.pid].group, self._identities[root.pid].session)
        members: dict[int, list[Skeleton]] = {}
        for skeleton, group in self._groups():
            members.setdefault(group, []).append(skeleton)
        for group, skeletons in members.items():
            leader = next((skeleton for skeleton in skeletons if skeleton.pid == group), None)
            if leader is None and self._sessions.get(group) == group:
                pass  # a session whose leader has ended
            elif leader is not None and self._sessions[leader.pid] == group:
                pass  # setsid has made it
            elif leader is not None:
                leader.main.all([(NR["setpgid"], (0, 0))], f"process {group} group")
            elif group in outside:
                group = self._outside_group(group, skeletons)
            else:
                self._found(group, skeletons)
            if group == 0:
                continue
            for skeleton in skeletons:
                if skeleton.pid != group:
                    skeleton.main.all([(NR["setpgid"], (0, group))], f"process {skeleton.pid} group")

    def _outside_group(self, group: int, members: Sequence[Skeleton]) -> int:
        """The root's group, which was founded outside of the image: its number now; 0: that of whoever restores, which has no number inside."""
        session = self._identities[self.skeletons[0].pid].session
        if group == 0 or (group == session and self._leader):
            return group
        try:
            self._found(group, members)
        except RestoreError:
            root = self.skeletons[0]
            root.main.all([(NR["setpgid"], (0, 0))], f"process {root.pid} group")
            self._notes.append(f"process {root.pid} is in a group of its own: {group} is in use")
            return root.pid
        return group

    def _groups(self) -> Iterator[tuple[Skeleton, int]]:
        for skeleton in self.skeletons:
            yield skeleton, self._identities[skeleton.pid].group
        for skeleton, zombie in self._passing:
            if zombie is not None:
                yield skeleton, zombie.group

    def _found(self, group: int, members: Sequence[Skeleton]) -> None:
        """A group without a leader: a child of one in the same session founds it."""
        session = self._sessions.get(members[0].pid, 0)
        parent = next((one for one in self.skeletons if self._sessions[one.pid] == session), self.skeletons[0])
        leader = parent.fork(_nobody(group, parent.pid))
        self._passing.append((leader, None))
        leader.main.all([(NR["setpgid"], (0, 0))], f"process group {group}")

    # The dead

    def _make_dead(self) -> None:
        for parent in self.skeletons:
            for zombie in _zombies(parent.process):
                if zombie.pid in self._sessions and zombie.pid not in self._identities:
                    continue  # it has founded a session that others are in
                if zombie.pid in self._identities or not 0 < zombie.pid < 1 << 22:
                    raise HostileImage(f"process {parent.pid}", f"a dead child {zombie.pid} that lives")
                skeleton = parent.fork(_nobody(zombie.pid, parent.pid), 0, zombie.exit_signal & 0xFF)
                self._passing.append((skeleton, zombie))
                self._sessions[zombie.pid] = self._sessions[parent.pid]
                remote = skeleton.main
                _call_it(remote, zombie.name)
                if zombie.session == zombie.pid:
                    remote.all([(NR["setsid"], ())], f"process {zombie.pid} session")
                    self._sessions[zombie.pid] = zombie.pid

    def _bury(self) -> None:
        """Those that have to end do."""
        while self._passing:
            skeleton, zombie = self._passing[-1]
            status = zombie.exit_status or 0 if zombie is not None else 0
            _end(skeleton, status)
            if zombie is None:
                parent = next(one for one in self.skeletons if one.pid == skeleton.process.parent)
                parent.main.all([(NR["wait4"], (skeleton.pid, 0, _WALL, 0))], f"process group {skeleton.pid}")
            skeleton.close()
            self._passing.pop()
        for skeleton in self.skeletons:
            _forget_child_signal(skeleton)

    def close(self) -> None:
        """Whatever is half done."""
        for skeleton, _ in self._passing:
            skeleton.kill()
            skeleton.close()
        self._passing.clear()


def _call_it(remote: Remote, name: str) -> None:
    remote.call(NR["prctl"], SET_NAME, remote.put(os.fsencode(name)[:15] + b"\0"))
    remote.clear()


def _zombies(process: Process) -> tuple[Zombie, ...]:
    return tuple(select(process.section("family"), Zombie))


def _nobody(pid: int, parent: int) -> Process:
    return Process(pid, parent, "", RegionMap(()), ())


def _identity(process: Process) -> Identity:
    found = select(process.section("status"), Identity)
    if not found:
        raise HostileImage(f"process {process.pid}", "it does not say who it is")
    return found[0]


def _end(skeleton: Skeleton, status: int) -> None:
    """Let a skeleton end with a status of wait(2), and take note of it as its tracer; its parent can wait for it then."""
    number = status & 0x7F
    remote = skeleton.main
    remote.call(NR["prlimit64"], 0, _RLIMIT_CORE, remote.put(bytes(16)), 0)
    if number:
        ptrace.set_signal_mask(remote.tid, 0)
        os.kill(remote.tid, number)
        with suppress(ProcessLookupError):  # SIGKILL has not waited for that
            ptrace.call(ptrace.PTRACE_CONT, remote.tid, 0, 0)
    else:
        registers = remote.prepared([(NR["exit_group"], (status >> 8,))])
        remote.store(registers)
        ptrace.call(ptrace.PTRACE_CONT, remote.tid, 0, 0)
    while True:
        _, found = os.waitpid(remote.tid, _WALL)
        if not os.WIFSTOPPED(found):
            return
        stopped = os.WSTOPSIG(found)
        ptrace.call(ptrace.PTRACE_CONT, remote.tid, 0, stopped if stopped == number and not found >> 16 else 0)


def _forget_child_signal(skeleton: Skeleton) -> None:
    """Take back the SIGCHLD that those have caused; what really waited is queued later."""
    remote = skeleton.main
    wanted = remote.put((1 << (signal.SIGCHLD - 1)).to_bytes(8, "little"))
    remote.batch([(NR["rt_sigtimedwait"], (wanted, 0, remote.put(bytes(16)), _SIGSET_SIZE))])
    remote.clear()


def pids(skeletons: Sequence[Skeleton]) -> Mapping[int, int]:
    """Our ids by theirs."""
    return {skeleton.pid: skeleton.tid for skeleton in skeletons}
