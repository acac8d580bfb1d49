"""One command of a master's, with its journal, its upload and its download: they have to wait for each other."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

from tailrace.dialects.buildbot.calls import Complete, Item, Text, Update

if TYPE_CHECKING:
    from tailrace._core import BananaOutput
    from tailrace.dialects.buildbot.calls import Element
    from tailrace.dialects.buildbot.downloading import SentDownload
    from tailrace.dialects.buildbot.receiving import Handle, Host, ReceivedJournal, ReceivedUpload
    from tailrace.messages import Value

# How much may come behind `rc` while an upload is not in its place yet.
_HELD_BYTES_MAX = 1 << 20
_HELD_CALLS_MAX = 1024


@final
class ReceivedCommand:
    """One command of ours at a worker, from its start call to its end."""

    def __init__(
        self, host: Host, journal: ReceivedJournal, upload: ReceivedUpload | None, download: SentDownload | None
    ) -> None:
        self._host = host
        self.journal = journal
        self.upload = upload
        self.download = download
        # What waits until the upload is in its place: `link` ends a transfer when its command's journal ends.
        self._held: deque[tuple[Handle | None, tuple[Element, ...] | Complete]] = deque()
        self._held_bytes = 0

    def update(self, handle: Handle, update: Update) -> None:
        if self._held:
            self._hold(handle, update.elements)
            return
        elements = update.elements
        for index, element in enumerate(elements):
            if isinstance(element, Item) and _is_rc(element) and self._waits(element.value):
                self.journal.update(None, elements[:index])
                self._hold(handle, elements[index:])
                return
        self.journal.update(handle, self._judged(elements))

    def output(self, handle: Handle, output: BananaOutput) -> None:
        """An update with nothing but text."""
        if self._held:
            self._hold(handle, tuple(Text(channel, name, text) for channel, name, text in output.texts))
        else:
            self.journal.output(handle, output)

    def complete(self, handle: Handle, complete: Complete) -> None:
        if self._held or self._waits(None):
            self._held.append((handle, complete))
        else:
            self.journal.complete(handle, complete.failure)

    def _hold(self, handle: Handle, elements: tuple[Element, ...]) -> None:
        """What comes behind `rc` is short: a line or two."""
        self._held_bytes += sum(len(e.text) if isinstance(e, Text) else 0 for e in elements)
        if self._held_bytes > _HELD_BYTES_MAX or len(self._held) >= _HELD_CALLS_MAX:
            self._host.refuse(handle, "LimitExceeded", "too much comes behind rc")
        else:
            self._held.append((handle, elements))

    def go_on(self) -> None:
        """The upload may be over."""
        if self.upload is None or not self.upload.over:
            return
        while self._held:
            handle, what = self._held.popleft()
            if isinstance(what, Complete):
                assert handle is not None
                self.journal.complete(handle, what.failure)
            else:
                self.journal.update(handle, self._judged(what))

    def _waits(self, rc: Value) -> bool:
        """Have the upload ended. Whether that takes time."""
        if self.upload is None:
            return False
        self.upload.finish(rc)
        return not self.upload.over

    def _judged(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        """The worker may think that all went well, and does not know why not; that is for the master's file to say."""
        transfer = self.upload or self.download
        if transfer is None or transfer.refusal is None or not any(map(_is_rc, elements)):
            return elements
        why = ": ".join(filter(None, transfer.refusal))
        said = Text("stderr", None, f"the master gave the transfer up: {why}\n")
        return (said, *(Item("rc", 1) if element == Item("rc", 0) else element for element in elements))


def _is_rc(element: Element) -> bool:
    return isinstance(element, Item) and element.key == "rc"
