"""Seccomp filters."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import every, one, read_state, still_well, unsaved
from vcsimg.image.sections.seccomp import SeccompFilter
from vcsimg.image.sections.signals import Disposition, Handler
from vcsimg.image.sections.status import Credentials

FILTER = 2
RET_ALLOW = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)


def test_filters_are_read_by_the_privileged_and_named_to_the_others(start: Callable[..., Target]) -> None:
    target = start("state_seccomp")
    target.line()
    state = read_state(target.pid)

    credentials = one(state, Credentials)
    assert (credentials.seccomp, credentials.no_new_privs) == (FILTER, True)
    if os.geteuid() == 0:
        assert every(state, SeccompFilter) == [SeccompFilter(0, 0, RET_ALLOW)]
    else:
        assert "CAP_SYS_ADMIN" in unsaved(state)["seccomp filters"]
    still_well(target)


def test_under_a_filter_calls_are_borrowed_by_the_privileged_and_what_is_missing_is_named(start: Callable[..., Target]) -> None:
    target = start("state_seccomp")
    target.line()
    state = read_state(target.pid)

    if os.geteuid() == 0:
        signals = {handler.signal for handler in every(state, Handler)}
        assert signals - {32, 33} == {signal.SIGUSR1}, "32 and 33 are the C library's"
        assert not {"interval timers", "borrowed system calls"} & set(unsaved(state))
        still_well(target)
        return
    assert every(state, Handler) == []
    assert one(state, Disposition).ignored & ~(3 << 31) == 1 << 9  # signals 32 and 33 are the C library's
    assert "borrowed" in unsaved(state)["interval timers"]
    assert "filter" in unsaved(state)["borrowed system calls"]
    still_well(target)
