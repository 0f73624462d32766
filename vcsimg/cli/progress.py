"""How far something is: rich on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcsimg.cli.output import Output

if TYPE_CHECKING:
    from vcsimg.store.gitcommand import Progress as Transfer


@contextmanager
def transfer(output: Output) -> Iterator[Transfer | None]:
    """One bar for each thing that git says it is doing. The display begins with the first: git may ask for a password before."""
    if not output.terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), console=output.console, transient=True
    )
    tasks = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()


@contextmanager
def reading(output: Output) -> Iterator[Callable[[int, int], None] | None]:
    """Bytes of so many. The display begins with the first: small processes are over before."""
    if not output.terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("reading"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn()
    # Drawn by this thread only: one that draws by itself would hold Python's lock while the process is stopped.
    bar = Progress(*columns, console=output.console, transient=True, auto_refresh=False)
    task = bar.add_task("", total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total, refresh=True)

    try:
        yield progress
    finally:
        bar.stop()


@contextmanager
def busy(output: Output, what: str) -> Iterator[None]:
    """Something of which nobody knows how long it takes."""
    if not output.terminal:
        yield
        return
    with output.console.status(output.text(what)):
        yield
