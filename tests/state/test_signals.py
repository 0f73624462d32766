"""Signals: handlers, masks, what waits."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import every, one, read_state, still_well
from vcsimg.image.sections.signals import Disposition, Handler
from vcsimg.image.sections.thread import Altstack, Pending, SignalMask

SA_SIGINFO, SA_RESTORER, SA_ONSTACK, SA_RESTART, SA_NODEFER = 0x4, 0x4000000, 0x8000000, 0x10000000, 0x40000000

C_LIBRARY = (32, 33)
"""Signals that the C library keeps for itself."""


def bit(number: int) -> int:
    return 1 << number - 1


def test_handlers(start: Callable[..., Target]) -> None:
    target = start("state_signals")
    _, realtime, address, _ = (int(word, 0) for word in target.line().split())
    state = read_state(target.pid)

    usual = one(state, Handler, signal=int(signal.SIGUSR1))
    assert (usual.action, usual.mask) == (address, bit(signal.SIGTERM))
    assert usual.flags == SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_RESTORER
    assert usual.restorer != 0
    assert one(state, Handler, signal=64).flags & SA_ONSTACK
    assert one(state, Handler, signal=int(signal.SIGHUP)).action == 1
    assert [item.signal for item in every(state, Handler) if item.signal not in C_LIBRARY] == [1, 10, 12, realtime, 64]
    # The C library's own signals, 32 and 33, may be ignored by whoever started the tests.
    assert one(state, Disposition).ignored & ~(3 << 31) == bit(signal.SIGHUP)
    still_well(target)


def test_pending_signals_in_order_with_their_values(start: Callable[..., Target]) -> None:
    target = start("state_signals")
    tid, realtime, _, _ = (int(word, 0) for word in target.line().split())
    state = read_state(target.pid)

    shared = every(state, Pending)
    assert [item.signal for item in shared] == [realtime, realtime, int(signal.SIGUSR1)]
    values = [struct.unpack_from("<i", item.info, 24)[0] for item in shared if item.info is not None]
    assert values[:2] == [7, 8]
    main, other = state.threads
    assert other.tid == tid
    assert one(main, Pending).signal == signal.SIGUSR2
    assert one(other, Pending).signal == signal.SIGUSR1
    still_well(target)


def test_masks_and_alternate_stacks(start: Callable[..., Target]) -> None:
    target = start("state_signals")
    _, realtime, _, stack = (int(word, 0) for word in target.line().split())
    main, other = read_state(target.pid).threads

    assert one(main, SignalMask).mask == bit(signal.SIGUSR1) | bit(signal.SIGUSR2) | bit(realtime)
    assert one(other, SignalMask).mask & bit(signal.SIGTERM)
    assert one(main, Altstack) == Altstack(stack, 100000, 0)
    assert one(other, Altstack).flags == 2
    still_well(target)
