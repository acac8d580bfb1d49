"""A journal's bytes as text: no character is broken by the place where one call ends and the next begins."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, final

from tailrace._core import Batch
from tailrace.messages import Updates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tailrace.messages import Channel


@final
class Transcript:
    """Makes the `Updates` of one command, in order.

    For UTF-8 nothing is decoded here: a byte scan finds the up to three bytes that begin a character without ending it.
    Encodings with one byte for each character need nothing at all. The rest is decoded as it comes, by the codec that
    knows its states.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding if _is_text(encoding) else "utf-8"
        self._kept: dict[Channel, bytes] = {}
        self._decoders: dict[Channel, codecs.IncrementalDecoder] = {}
        self._scans = codecs.lookup(self._encoding).name == "utf-8"
        # A decoder that has no state of its own has not said how to get it.
        decoder = codecs.getincrementaldecoder(self._encoding)("replace")
        stateless = type(decoder).getstate is codecs.IncrementalDecoder.getstate
        self._decodes = not self._scans and not stateless

    def updates(self, batch: Batch, receipt_agrees: bool | None = None) -> Iterable[Updates]:
        """The calls that tell of this batch: mostly one. What waits is let go with the one that has `rc`."""
        if self._decodes:
            return self._decoded(batch, receipt_agrees)
        if self._scans:
            kept = batch.tails(self._kept)
            if self._kept or (kept and not _is_last(batch)):
                return self._carried(batch, kept, receipt_agrees)
        return (Updates(batch, encoding=self._encoding, receipt_agrees=receipt_agrees),)

    def _carried(self, batch: Batch, kept: dict[Channel, bytes], agrees: bool | None) -> Iterator[Updates]:
        """With bytes that wait. Those of channels that are not in this batch wait on, or go along with the last."""
        begun, self._kept = self._kept, {}
        present, last = batch.channels(), _is_last(batch)
        others = {channel: tail for channel, tail in begun.items() if channel not in present}
        if not last:
            self._kept = {**others, **kept}
            begun = {channel: tail for channel, tail in begun.items() if channel in present}
            yield Updates(batch, encoding=self._encoding, begun=begun, kept=kept, receipt_agrees=agrees)
            return
        # One call never holds two named logs.
        logs = [channel for channel in others if channel[0] == "log"]
        for channel in logs if any(name == "log" for name, _ in present) else logs[1:]:
            yield Updates(Batch.parse(b"", batch.start), encoding=self._encoding, begun={channel: begun.pop(channel)})
        yield Updates(batch, encoding=self._encoding, begun=begun, receipt_agrees=agrees)

    def _decoded(self, batch: Batch, receipt_agrees: bool | None) -> Iterator[Updates]:
        last = _is_last(batch)
        texts: dict[Channel, str] = {}
        present = batch.channels()
        for channel in present:
            decoder = self._decoders.get(channel)
            if decoder is None:
                decoder = self._decoders[channel] = codecs.getincrementaldecoder(self._encoding)("replace")
            texts[channel] = decoder.decode(batch.channel_bytes(*channel), last)
        named = any(channel[0] == "log" for channel in present)
        for channel, decoder in self._decoders.items() if last else ():
            if channel not in texts and (text := decoder.decode(b"", final=True)):
                if channel[0] == "log" and named:
                    yield Updates(Batch.parse(b"", batch.start), begun={channel: b""}, texts={channel: text})
                else:
                    texts[channel] = text
                    named = named or channel[0] == "log"
        begun = {channel: b"" for channel in texts if channel not in present}
        yield Updates(batch, begun=begun, texts=texts, receipt_agrees=receipt_agrees)


def _is_last(batch: Batch) -> bool:
    return batch.complete or "rc" in batch.updates()


def _is_text(encoding: str) -> bool:
    """Whether Python knows it, and as an encoding of text."""
    try:
        b"x".decode(encoding, "replace")
    except LookupError:
        return False
    return True
