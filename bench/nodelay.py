"""Buildbot with `TCP_NODELAY`, which it does not set itself: what its short commands could be."""

from twisted.spread.banana import Banana


def switch_on() -> None:
    """In a process of either end, before it connects."""
    made = Banana.connectionMade

    def connection_made(self: Banana) -> None:
        self.transport.setTcpNoDelay(True)
        made(self)

    Banana.connectionMade = connection_made
