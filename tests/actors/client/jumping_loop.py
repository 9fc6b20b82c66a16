"""An asyncio loop whose clock jumps to the next timer when nothing else is to be done, as trio's autojump clock."""

import asyncio  # noqa: TID251 - what is tested is that the client runs on it
import selectors
from collections.abc import Awaitable, Callable


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Virtual time: a test of an hour takes no time. For tests without sockets and threads."""

    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_jumping(main: Callable[[], Awaitable[None]]) -> None:
    """Run to the end under asyncio in virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
