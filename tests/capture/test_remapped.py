"""Memory that is mapped anew, or dropped, between captures: what was there before must not shine through, and all of it is tracked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.capture.comparison import assert_same
from tests.capture.memory_store import MemoryStore
from tests.conftest import Target, on_one_processor
from vcsimg.capture import Options, Session
from vcsimg.kernel import features

Start = Callable[..., Target]


@pytest.mark.parametrize("engine", ["auto", "compare"])
@pytest.mark.parametrize(
    "commands", ["f.mo.mo.f.mo", "f.d.o", "mf.d.mo", "f.mf.do.mo", "o.m.o.mf.dm", "f.mod.o.mf.d", "f.mo.x", "mf.mf.x.ox"]
)
def test_nothing_shines_through(commands: str, engine: str, start: Start, tmp_path: Path, truths: dict[int, Any]) -> None:
    target = start("capture_remap", preexec_fn=on_one_processor)
    assert target.line() == "ready"
    store = MemoryStore()
    tracks = features.available("uffd_wp_async") and features.available("pagemap_scan")
    with Session(target.pid, Options(scratch=tmp_path, engine=engine), store.load) as session:
        for some in commands.split("."):
            for command in some:
                target.send(f"{command}\n")
                assert target.line() == "done"
            with session.capture() as snapshot:
                commit = store.commit(snapshot)
                session.stored(commit)
            assert_same(store.load(commit).processes[0], truths[target.pid])
            if engine == "auto" and tracks:
                # Not by a fork, though 32 MiB are mapped that were not there.
                assert snapshot.facts is not None
                assert snapshot.facts.engine == "wp"
