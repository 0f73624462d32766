"""A Snapshot brought back to life. Every step is a system call that the new process makes itself, asked for from outside.

check       what the image says, before anything is started
space       namespaces with an init; skeletons: processes with nothing in them but what drives them, with the right ids
memory      mappings, kernel pages, content
resources   descriptors, directories, handlers, threads, settings, limits, rights
last        signals that wait, timers; what drove them is unmapped; registers; all are let go
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from vcsimg.errors import RestoreError
from vcsimg.image.sections.family import SharedFile
from vcsimg.image.sections.item import select
from vcsimg.image.sections.status import Credentials, Identity
from vcsimg.image.snapshot import Snapshot
from vcsimg.kernel import procfs
from vcsimg.kernel.syscalls import NR
from vcsimg.restore import arena, mqueues, transport, waits
from vcsimg.restore.anonymous import restore_watches
from vcsimg.restore.bounds import restore_bounds
from vcsimg.restore.cgroups import note_on_cgroups
from vcsimg.restore.checks import check
from vcsimg.restore.context import Context, RestoreOptions
from vcsimg.restore.descriptors import Descriptors
from vcsimg.restore.elsewhere import check_elsewhere, host_name
from vcsimg.restore.filling import fill
from vcsimg.restore.inside import as_they_see
from vcsimg.restore.locks import restore_locks
from vcsimg.restore.mapped import MappedFiles
from vcsimg.restore.memory import MemoryRestorer
from vcsimg.restore.objects import Objects
from vcsimg.restore.policies import restore_policies
from vcsimg.restore.ptys import Pty, Ptys
from vcsimg.restore.sessions import Controls, control_of
from vcsimg.restore.signals import queue_signals, queue_traps, restore_handlers, trap_handler
from vcsimg.restore.skeleton import Skeleton, arena_base, seize
from vcsimg.restore.space import Space
from vcsimg.restore.status import ids_inside, restore_limits, restore_places, restore_rights, restore_settings
from vcsimg.restore.sysv import SharedObjects
from vcsimg.restore.threads import make_threads, restore_registers, restore_thread
from vcsimg.restore.timers import restore_timers
from vcsimg.restore.tree import Tree, pids
from vcsimg.restore.vdso import make_way, restore_vdso
from vcsimg.restore.versions import Versions

_STOP_SECONDS = 1.0
_STOP_TICK = 0.0001


@dataclass(frozen=True)
class Restored:
    """`pid`: of the root process, as we see it; `pids`: of all, by the pids that they see. `notes`: what is other than it was. `terminal`: the pty
    at which the user shall sit, if there is one: its descriptors belong to the caller."""

    pid: int
    pids: dict[int, int]
    start_ticks: int
    notes: tuple[str, ...]
    space: Space
    terminal: Pty | None = None


def restore(snapshot: Snapshot, options: RestoreOptions | None = None, ready: Callable[[int, int], None] | None = None) -> Restored:
    """Run an image again. When this returns, its processes run; on an error there is nothing left of them.

    `ready` is called when all is done and nothing runs yet, with the pid of the root process, as we see it, and its start time in ticks since
    boot; what it raises is an error too. Must be called by the main thread. Raises RestoreError (what cannot come back, why, and the option to
    go on without it), HostileImage, DamagedImage.
    """
    check(snapshot)
    inside = as_they_see(snapshot)
    if inside is not snapshot:
        snapshot = inside
        check(snapshot)
    options = options or RestoreOptions()
    notes: list[str] = []
    check_elsewhere(snapshot, options, notes)
    root = snapshot.processes[0]
    credentials = select(root.section("status"), Credentials)
    uid, gid = ids_inside(credentials[0] if credentials else None)
    objects = Objects()
    ptys = Ptys(snapshot, attended=options.attended and any(fd is not None and os.isatty(fd) for fd in options.standard))
    space = Space(
        host_pids=options.host_pids,
        uid=uid,
        gid=gid,
        terminals=ptys.needed,
        ipc=SharedObjects.needed(snapshot),
        name=host_name(snapshot),
    )
    run = _Run(snapshot, options, objects, ptys, space)
    run.notes.extend(notes)
    try:
        restored = run.run(ready)
    except OSError as error:
        run.abandon()
        raise RestoreError("processes", f"{error.strerror} ({error.filename or 'system call'})") from error
    except BaseException:
        run.abandon()
        raise
    finally:
        run.close()
    return restored


class _Run:
    def __init__(self, snapshot: Snapshot, options: RestoreOptions, objects: Objects, ptys: Ptys, space: Space) -> None:
        self._snapshot = snapshot
        self._space = space
        self._context = Context(snapshot, options, objects, space.root, ptys, space)
        self._attended: Pty | None = None
        self._versions = Versions(self._context)
        self._files = MappedFiles(self._context.root, objects, space.open, self._context.places)
        self._shared = SharedObjects(snapshot, space, self._context.notes)
        self._memory = MemoryRestorer(space.transport, objects, self._files, self._shared, self._context.notes)
        self._descriptors = Descriptors(self._context)
        self._skeletons: list[Skeleton] = []
        self._tree: Tree | None = None

    @property
    def notes(self) -> list[str]:
        return self._context.notes

    def close(self) -> None:
        for skeleton in self._skeletons:
            skeleton.close()
        self._files.close()
        self._versions.close()
        self._context.close()
        self._context.objects.close()
        self._context.ptys.close(keep=self._attended.master if self._attended is not None else None)

    def abandon(self) -> None:
        """Leave nothing of it. What we trace must be reaped by us before the init can end."""
        if self._tree is not None:
            self._tree.close()
        for skeleton in reversed(self._skeletons):
            skeleton.kill()
        self._versions.undo()
        self._space.close()

    def run(self, ready: Callable[[int, int], None] | None) -> Restored:
        highest = self._descriptors.highest()
        self._make_tree(highest + 1)
        self._versions.prepare()  # now that their files in /proc are there
        context = self._context
        if not context.options.host_pids:
            self._shared.make(self._skeletons[0])
            self._shared.fill(self._skeletons[0])
        elif SharedObjects.needed(self._snapshot):
            context.notes.append("System V IPC objects come back only in namespaces of their own: shared memory is memory only")
        for skeleton in self._skeletons:
            make_way(skeleton)
            self._memory.map(skeleton)
            restore_vdso(skeleton)
            restore_policies(skeleton, context.notes)
            fill(skeleton)
            restore_bounds(skeleton, self._space.transport, self._files, context.notes)
            self._memory.advise(skeleton)
        self._descriptors.make_all()
        for skeleton in self._skeletons:
            self._descriptors.place(skeleton, self._space.transport)
        self._versions.commit()
        mqueues.restore_watches(context)
        self._poke()
        for skeleton in self._skeletons:
            self._memory.seal(skeleton)
        for skeleton in self._skeletons:
            self._restore_rest(skeleton)
        context.objects.apply_seals()
        self._shared.finish(self._skeletons[0])
        context.ptys.finish()
        for skeleton in self._skeletons:
            queue_signals(skeleton)
            restore_timers(skeleton)
            restore_limits(skeleton, context, waiting=True)
            skeleton.main.batch([(NR["close"], (skeleton.transport,))])  # closed already, if it shares its descriptors
        unattended = [fd for pty in context.ptys.unattended() for fd in (pty.master, pty.slave)]
        self._space.settle(self._snapshot.processes[0].pid, unattended)
        for skeleton in self._skeletons:
            self._finish(skeleton)
        start = procfs.stat(self._skeletons[0].tid).starttime
        if ready is not None:
            ready(self._skeletons[0].tid, start)
        for last in context.before_they_run:
            last()
        # Those that are stopped first: their parents find them so.
        for skeleton in sorted(self._skeletons, key=_was_stopped, reverse=True):
            self._let_go(skeleton)
        self._attended = context.ptys.attended
        return Restored(self._skeletons[0].tid, dict(context.pids), start, tuple(context.notes), self._space, self._attended)

    def _make_tree(self, above: int) -> None:
        root = self._snapshot.processes[0]
        base = arena_base([region for process in self._snapshot.processes for region in process.regions])
        ptys = self._context.ptys
        if ptys.needed:
            ptys.make(self._context.root, self._context.notes)
        tid, leader = self._make_root()
        seize(tid)
        skeleton = Skeleton(root, tid, base)
        self._skeletons.append(skeleton)
        skeleton.empty()
        transport.settle(skeleton, self._space.transport_inode, above)
        controls = Controls(ptys, self._space.transport)
        self._tree = Tree(self._snapshot, skeleton, controls, self._context.notes, leader=leader)
        self._skeletons = self._tree.skeletons
        self._tree.make()
        self._context.skeletons.update({skeleton.pid: skeleton for skeleton in self._skeletons})
        self._context.pids.update(pids(self._skeletons))
        note_on_cgroups(self._skeletons, self._context.notes)

    def _make_root(self) -> tuple[int, bool]:
        """The root process, led as it was; also whether its session has the number that it had."""
        root = self._snapshot.processes[0]
        found = select(root.section("status"), Identity)
        session = found[0].session if found else 0
        control = control_of(root)
        if session == root.pid or (session == 0 and control is None):
            return self._space.make_root(root.pid)[0], False
        path = self._context.ptys.made[control.device].path if control is not None else None
        tid, exact = self._space.make_root(root.pid, max(session, 0), path)
        if not exact and session:
            self._context.notes.append(f"process {root.pid} is in another session than it was: {session} is in use")
        return tid, exact

    def _poke(self) -> None:
        skeleton = self._skeletons[0]
        for address, data in self._context.options.pokes.items():
            try:
                if os.pwrite(skeleton.memory, data, address) != len(data):
                    raise RestoreError(f"value at {address:#x}", "the memory ends there")
            except (OSError, OverflowError):
                raise RestoreError(f"value at {address:#x}", "there is no memory") from None

    def _restore_rest(self, skeleton: Skeleton) -> None:
        process = skeleton.process
        context = self._context
        restore_watches(skeleton, frozenset(file.fd for file in select(process.section("shared"), SharedFile)))
        restore_locks(skeleton)
        restore_places(skeleton, context)
        restore_handlers(skeleton)
        make_threads(skeleton)
        restore_settings(skeleton, context)
        restore_limits(skeleton, context, waiting=False)
        for thread in process.threads:
            restore_thread(skeleton, thread, context.notes)
        for thread in process.threads:
            restore_rights(skeleton, thread, context, user_namespace=self._space.user_namespace)

    def _finish(self, skeleton: Skeleton) -> None:
        """Take away what drove it, and give it its registers."""
        if all(thread.tid != skeleton.pid for thread in skeleton.process.threads):
            skeleton.end_main_thread()
        captured = self._snapshot.facts.monotonic if self._snapshot.facts is not None else 0
        for thread in skeleton.process.threads:
            waits.arm(skeleton, thread, captured)
            if thread.tid != skeleton.main.inner and thread.tid not in skeleton.waits:
                skeleton.threads[thread.tid].come_to_rest()
        main = skeleton.main
        instruction = skeleton.base + arena.SYSCALL_OFFSET
        action = trap_handler(skeleton)
        if action is not None:
            main.at(instruction, NR["rt_sigaction"], signal.SIGTRAP, main.put(action), 0, 8)
        if main.at(instruction, NR["munmap"], skeleton.base, arena.SIZE) != 0:
            raise RestoreError(f"process {skeleton.pid}", "what drove it cannot be unmapped")
        main.come_to_rest()
        for thread in skeleton.process.threads:
            restore_registers(skeleton, thread, captured)
        queue_traps(skeleton, self._context.notes)
        if _was_stopped(skeleton):
            self._context.notes.append(
                f"process {skeleton.pid} is stopped, as it was, by SIGSTOP: which signal it was is not known"
            )

    def _let_go(self, skeleton: Skeleton) -> None:
        if self._context.options.stopped or _was_stopped(skeleton):
            with suppress(ProcessLookupError):
                os.kill(skeleton.tid, signal.SIGSTOP)
        skeleton.let_go()
        if _was_stopped(skeleton):
            _await_stop(skeleton.tid)


def _await_stop(pid: int) -> None:
    """The signal takes effect when the process is on its way back to its program. Waits for a moment only: it may be continued, or be killed."""
    end = time.monotonic() + _STOP_SECONDS
    with suppress(OSError):
        while procfs.stat(pid).state not in "TZX" and time.monotonic() < end:
            time.sleep(_STOP_TICK)


def _was_stopped(skeleton: Skeleton) -> bool:
    return any(identity.stopped for identity in select(skeleton.process.section("status"), Identity))
