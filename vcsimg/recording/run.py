"""Starting a program, recording it, and waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vcsimg.capture import Options
from vcsimg.errors import ProcessError, VcsimgError
from vcsimg.recording.follow import follow
from vcsimg.recording.launch import launched
from vcsimg.recording.recorder import Recorded, Recorder
from vcsimg.store import Repository


def run(
    repository: Repository,
    command: Sequence[str],
    options: Options,
    *,
    every: float | None,
    count: int | None = None,
    on_start: Callable[[Recorder], None],
    on_capture: Callable[[Recorded], None],
    on_error: Callable[[VcsimgError], None],
) -> int:
    """Run a program to its end, and record it meanwhile as follow() does; returns its exit status, negative for a signal.

    The program comes first: if it cannot be recorded, or no longer, `on_error` is told and it runs on. A signal that would end us is
    passed on to it. Raises CommandNotStarted.
    """
    with launched(command) as process:
        try:
            with Recorder(repository, process.pid, options) as recorder:
                on_start(recorder)
                follow(
                    recorder,
                    repository.path,
                    every=every,
                    count=count,
                    patient=True,
                    stop_signals=(),
                    capture_signals=(),
                    on_capture=on_capture,
                    on_error=on_error,
                )
        except VcsimgError as error:
            if not isinstance(error, ProcessError) or process.poll() is None:
                on_error(error)
        finally:
            status = process.wait()
    return status
