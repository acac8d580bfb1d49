"""Lines, byte by byte."""

import codecs


def line_starts(data, continues=False):
    """Where lines begin: at the first byte and after each newline that a byte follows."""
    begins = not continues
    starts = []
    for at, byte in enumerate(data):
        if begins:
            starts.append(at)
        begins = byte == 0x0A
    return starts


def line_times(pieces):
    """The time of each line's first byte, of (bytes, time) pieces of one channel."""
    joined = b"".join(data for data, _ in pieces)
    times = [time for data, time in pieces for _ in data]
    return [times[at] for at in line_starts(joined)]


def undecoded_tail(data):
    """The bytes that Python's incremental UTF-8 decoder keeps back, half a surrogate excepted.

    For the sake of other error handlers it keeps that too, though nothing that follows makes it a character.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    tail = decoder.getstate()[0]
    return b"" if tail[:1] == b"\xed" and tail[1:] >= b"\xa0" else tail


def parts(records):
    """(kind, log name) records, split before a second named log, and behind `complete`."""
    split, names, closed = [[]], set(), False
    for kind, name in records:
        if closed or (kind == "log" and names and name not in names):
            split.append([])
            names = set()
        split[-1].append((kind, name))
        if kind == "log":
            names.add(name)
        closed = kind == "complete"
    return split
