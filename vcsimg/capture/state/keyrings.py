"""Keyrings, keyrings(7): the keys in them are not copied, so it is named that there are some."""

from __future__ import annotations

import struct

from vcsimg.capture.state.borrowing import Borrowings, Buffer, Call
from vcsimg.capture.state.moment import Moment
from vcsimg.capture.state.proc import ProcDirectory
from vcsimg.capture.state.report import Report
from vcsimg.image.sections.status import SessionKeyring
from vcsimg.kernel import keyrings
from vcsimg.kernel.procfs import status_line
from vcsimg.kernel.syscalls import NR

_NAME = 256
_KEYS = 256
_SERIAL = struct.Struct("<i")


class KeyringsReader:
    """Asks one process."""

    def prepare(self, proc: ProcDirectory) -> None:
        """While it runs: whether its users have keys at all. A process without a session keyring that is asked for it gets that of its
        user, as any use of keys would give it to it; where there are no keys, it is not asked."""
        owners = keyrings.owners()
        status = proc.try_read_at_once("status") if owners else None
        self._wanted = status is not None and bool(owners & set(map(int, status_line(status, "Uid").split())))

    def ask(self, ask: Borrowings) -> None:
        """Note the questions. Keyrings are not made by them."""
        self._own = {
            "thread": ask.call(NR["keyctl"], keyrings.GET_KEYRING_ID, keyrings.THREAD_KEYRING, 0),
            "process": ask.call(NR["keyctl"], keyrings.GET_KEYRING_ID, keyrings.PROCESS_KEYRING, 0),
        }
        self._session: tuple[Call, Call, Buffer, Call, Buffer] | None = None
        if self._wanted:
            name, keys, ring = ask.buffer(_NAME), ask.buffer(_KEYS * _SERIAL.size), keyrings.SESSION_KEYRING
            self._session = (
                ask.call(NR["keyctl"], keyrings.GET_KEYRING_ID, ring, 0),
                ask.call(NR["keyctl"], keyrings.DESCRIBE, ring, name, _NAME),
                name,
                ask.call(NR["keyctl"], keyrings.READ, ring, keys, _KEYS * _SERIAL.size),
                keys,
            )

    def read(self, moment: Moment) -> None:
        """While it is stopped."""
        self._tid = moment.tid

    def finish(self, report: Report) -> None:
        """Name what there is."""
        for kind, call in self._own.items():
            if call.result is not None and call.result > 0:
                resource = f"thread {self._tid} keyring" if kind == "thread" else "process keyring"
                report.unsaved(resource, "the keys in it (keyrings(7)) are not copied")
        found = self._found()
        if found is not None:
            report.add("status", found)
            if found.serial != keyrings.own_session():
                reason = f"keys (keyrings(7)) are not copied, and vcsimg has another one; it has {found.keys} in it"
                report.unsaved(f"session keyring {found.name}", reason)

    def _found(self) -> SessionKeyring | None:
        """Its session keyring, if there are keys in it, and it is not merely that of its user."""
        if self._session is None:
            return None
        serial, described, name, read, keys = self._session
        if serial.result is None or serial.result <= 0 or read.result is None or read.result <= 0:
            return None
        text = "?"
        if described.result is not None and described.result > 0:
            text = name.data.split(b"\0")[0].decode(errors="surrogateescape").split(";", 4)[-1]
        known = [number for (number,) in _SERIAL.iter_unpack(keys.data[: min(read.result, len(keys.data)) & -4])]
        count = read.result // _SERIAL.size - len(keyrings.user_keyrings() & set(known))
        if text.startswith(keyrings.USER_SESSION) or count <= 0:
            return None
        return SessionKeyring(serial.result, text, count)
