"""Commit messages: a subject, then trailers as `git interpret-trailers --parse` reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcsimg.image.snapshot import CaptureFacts, Snapshot

_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*): (.*)\Z")


def made_subject(snapshot: Snapshot, pages: int, regions: int) -> str:
    """What a capture is called when the user gave it no message."""
    root = snapshot.processes[0]
    others = len(snapshot.processes) - 1
    who = f"{root.name} {root.pid}" + (f" and {others} more" if others else "")
    return f"{who}: {_count(pages, 'page')} in {_count(regions, 'region')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def compose(text: str, snapshot: Snapshot) -> str:
    """The whole message: the text (subject, perhaps a body), a blank line, the trailers."""
    root = snapshot.processes[0]
    facts = snapshot.facts
    trailers: list[tuple[str, object]] = []
    if facts is not None:
        trailers += [
            ("Engine", facts.engine),
            ("Pause-Microseconds", round(facts.pause * 1e6)),
            ("Bytes-Read", facts.bytes_read),
            ("Pages-Changed", facts.pages_changed),
            ("Host", facts.host),
            ("Kernel", facts.kernel),
            ("Boot-Id", facts.boot_id),
        ]
    trailers.append(("Process", root.pid))
    if facts is not None:
        trailers.append(("Process-Start", facts.start_ticks))
        trailers.append(("Monotonic-Nanoseconds", facts.monotonic))
        trailers.append(("Source-Commit", facts.source_commit or ""))
        trailers.extend(("Note", note) for note in facts.notes)
    lines = [f"{name}: {_one_line(value)}" for name, value in trailers if _one_line(value)]
    return _body(text) + "\n\n" + "\n".join(lines) + "\n"


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _body(text: str) -> str:
    """The user's text, so that git sees no NUL in it, a subject in it, and no trailers but ours after it."""
    lines = [line.rstrip() for line in text.replace("\0", "").strip().splitlines()]
    body = "\n".join(lines) or "capture"
    # git takes a line of three dashes for the end of the message (interpret-trailers, "patch part").
    return re.sub(r"^---", " ---", body, flags=re.MULTILINE)


def parse(message: str) -> tuple[str, str, dict[str, str]]:
    """(subject, body without trailers, trailers) of a message. A name that stands twice has its values joined by newlines."""
    paragraphs = message.rstrip("\n").split("\n\n")
    trailers: dict[str, str] = {}
    if len(paragraphs) > 1:
        found = [_TRAILER.match(line) for line in paragraphs[-1].split("\n")]
        if all(found):
            for match in found:
                assert match is not None
                name, value = match[1], match[2]
                trailers[name] = f"{trailers[name]}\n{value}" if name in trailers else value
            paragraphs.pop()
    subject, _, rest = "\n\n".join(paragraphs).partition("\n")
    return subject, rest.strip("\n"), trailers


def facts_of(trailers: dict[str, str], time: float) -> CaptureFacts:
    """The facts of a capture, read back. What is missing or malformed stays at its default."""
    from vcsimg.image.snapshot import CaptureFacts

    return CaptureFacts(
        engine=trailers.get("Engine", ""),
        time=time,
        pause=_number(trailers.get("Pause-Microseconds")) / 1e6,
        bytes_read=_number(trailers.get("Bytes-Read")),
        pages_changed=_number(trailers.get("Pages-Changed")),
        start_ticks=_number(trailers.get("Process-Start")),
        monotonic=_number(trailers.get("Monotonic-Nanoseconds")),
        boot_id=trailers.get("Boot-Id", ""),
        host=trailers.get("Host", ""),
        kernel=trailers.get("Kernel", ""),
        source_commit=trailers.get("Source-Commit"),
        notes=trailers["Note"].split("\n") if "Note" in trailers else [],
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else 0
