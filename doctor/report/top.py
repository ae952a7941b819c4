"""The live view: a full screen that is drawn anew every few seconds, on a change of size, and until ``q``."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from rich.console import Console, RenderableType
from rich.live import Live

_ENDS = frozenset("qQ\x04")
_REDRAW_S = 0.05  # a window that is dragged changes its size many times


class _Suspend(Exception):
    """Ctrl-Z."""


def top(look: Callable[[], RenderableType], console: Console, every: float) -> None:
    """Show ``look()`` until q, Ctrl-C or a signal. The terminal is left as it was, whatever happens."""
    first = look()
    if not console.is_terminal or console.is_dumb_terminal:
        console.print(first)
        return
    while True:
        try:
            with _signals(), _keys() as key, Live(first, console=console, screen=True, auto_refresh=False) as live:
                live.refresh()
                while key(every) not in _ENDS:
                    live.update(look(), refresh=True)
            return
        except KeyboardInterrupt:
            return
        except _Suspend:
            os.kill(os.getpid(), signal.SIGSTOP)
            first = look()


@contextmanager
def _signals() -> Iterator[None]:
    """Signals that end or stop the program first give the terminal back."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Suspend

    wanted = ((signal.SIGTERM, end), (signal.SIGHUP, end), (signal.SIGTSTP, stop))
    before = [(number, signal.signal(number, what)) for number, what in wanted]
    try:
        yield
    finally:
        for number, what in before:
            signal.signal(number, what)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits some seconds for a key and returns it; '' when the time is up or the window changed its size."""
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)

    def resized(_number: int, _frame: FrameType | None) -> None:
        with suppress(OSError):
            os.write(woken, b".")

    before_size = signal.signal(signal.SIGWINCH, resized)
    keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = termios.tcgetattr(keyboard) if keyboard is not None else None

    def key(seconds: float) -> str:
        sources = [wake] if keyboard is None else [wake, keyboard]
        ready, _, _ = select.select(sources, [], [], seconds)
        if wake in ready:
            time.sleep(_REDRAW_S)
            with suppress(OSError):
                os.read(wake, 4096)
        if keyboard is not None and keyboard in ready:
            typed = os.read(keyboard, 64)
            return typed[:1].decode("ascii", "replace") if typed else "q"  # the terminal is gone
        return ""

    try:
        if keyboard is not None:
            tty.setcbreak(keyboard, termios.TCSANOW)
        yield key
    finally:
        signal.signal(signal.SIGWINCH, before_size)
        if keyboard is not None and before is not None:
            with suppress(termios.error):
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        os.close(wake)
        os.close(woken)
