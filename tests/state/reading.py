"""What the tests of the state of a process share: read a process as a capture does, and pick records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from tests.conftest import Target, wait_for
from vcsimg.capture.state import State, StateReader
from vcsimg.image.sections import SECTIONS, THREAD
from vcsimg.image.sections.item import Item
from vcsimg.image.sections.unsaved import Unsaved
from vcsimg.image.snapshot import Section, Thread
from vcsimg.process import hold

Kind = TypeVar("Kind", bound=Item)


def capture(reader: StateReader) -> State:
    """Stop, read, let go."""
    reader.prepare()
    with hold(reader.pid) as held:
        reader.read_held(held)
    return reader.finish()


def settle(pid: int) -> None:
    """Wait until all threads sleep."""
    wait_for(lambda: all(_asleep(path) for path in Path(f"/proc/{pid}/task").iterdir()))


def read_state(pid: int) -> State:
    """The state of a process that does nothing meanwhile: two captures of it must say the same, and every record must parse."""
    settle(pid)
    reader = StateReader(pid)
    first, second = capture(reader), capture(reader)
    assert _timeless(first.state) == _timeless(second.state)
    assert [thread.records for thread in first.threads] == [thread.records for thread in second.threads]
    assert first.unsaved == second.unsaved
    for name, section in first.state.items():
        _parse(section, SECTIONS[name])
    for thread in first.threads:
        _parse(thread.records, THREAD)
    return first


def _asleep(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] in "ST"


def _timeless(state: Mapping[str, Section]) -> dict[str, Section]:
    """Without remaining times, which change by themselves."""
    return {name: section for name, section in state.items() if name != "timers"}


def _parse(section: Section, kinds: tuple[type[Item], ...]) -> None:
    by_name = {kind.kind: kind for kind in kinds}
    for record in section:
        assert by_name[record.kind].parse(record).record() == record


def every(state: State | Thread, kind: type[Kind], **wanted: object) -> list[Kind]:
    """All items of one kind whose fields have the wanted values."""
    if isinstance(state, Thread):
        sections = [state.records]
    elif kind is Unsaved:
        sections = [state.unsaved]
    else:
        sections = [section for name, section in state.state.items() if kind in SECTIONS[name]]
    items = [kind.parse(record) for section in sections for record in section if record.kind == kind.kind]
    return [item for item in items if all(getattr(item, name) == value for name, value in wanted.items())]


def one(state: State | Thread, kind: type[Kind], **wanted: object) -> Kind:
    """The only such item."""
    (item,) = every(state, kind, **wanted)
    return item


def unsaved(state: State) -> dict[str, str]:
    """Reasons by resource."""
    return {item.resource: item.reason for item in every(state, Unsaved)}


def still_well(target: Target) -> None:
    """Let the program check itself."""
    target.send("\n")
    assert target.line() == "ok"


def numbers(target: Target) -> list[int]:
    """The numbers in the program's first line."""
    return [int(word, 0) for word in target.line().split()]
