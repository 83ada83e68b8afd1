"""SIGINT and SIGTERM: the first asks the work to save itself and stop, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import INTERRUPTED, TERMINATED

_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Stop:
    """`code`: the exit code of the first signal; 0 while there was none."""

    code: int = 0


@contextmanager
def stop_on_signals(request_stop: Callable[[], None]) -> Iterator[Stop]:
    """Call `request_stop` on the first signal and raise KeyboardInterrupt on the next.

    Outside the main thread, where Python cannot take signals, nothing is changed.
    """
    stop = Stop()

    def handle(number: int, _: FrameType | None) -> None:
        if stop.code:
            raise KeyboardInterrupt
        stop.code = _CODES[signal.Signals(number)]
        request_stop()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in _CODES}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
