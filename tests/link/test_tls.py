"""TLS: what has arrived is read at once, however many records it is."""

import ssl

import pytest
import trio
import trustme

from tailrace.link.endpoint import Endpoint, bound, connect, open_listeners
from tailrace.link.tls import AllRecords, below_tls

MANY = bytes(range(256)) * 160  # three records


@pytest.fixture(scope="module")
def contexts():
    authority = trustme.CA()
    ours, theirs = (ssl.SSLContext(how) for how in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    return ours, theirs


@pytest.fixture
async def ends(contexts):
    """The two ends of a connection."""
    wanted = Endpoint.parse("tailrace+tls://localhost:0")
    [listener] = await open_listeners(wanted, contexts[0])
    async with listener:
        client = await connect_to(bound(wanted, listener), listener, contexts[1])
        yield client
        for end in client:
            await trio.aclose_forcefully(end)


async def connect_to(endpoint, listener, context):
    found = []

    async def accept():
        found.append(await listener.accept())
        await found[0].do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        found.append(await connect(endpoint, context))
    return found[0], found[1]


async def test_all_records_are_read_at_once(ends):
    server, client = ends
    await client.send_all(MANY)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert await server.receive_some(1000) == MANY[:1000]
    assert await server.receive_some(1 << 20) == MANY[1000:]


async def test_an_end_comes_behind_what_was_sent(ends):
    server, client = ends
    await client.send_all(MANY)
    await client.aclose()
    assert await server.receive_some(1 << 20) == MANY
    assert await server.receive_some(1 << 20) == b""


async def test_what_is_no_tls_comes_behind_what_was(ends):
    server, client = ends
    await client.send_all(MANY)
    await below_tls(client).send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert await server.receive_some(1 << 20) == MANY
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some(1 << 20)


async def test_a_connection_without_tls_is_what_it_is():
    one, _ = trio.testing.memory_stream_pair()
    assert below_tls(one) is one


async def test_a_class_of_their_own_stays(ends, contexts):
    class Own(ssl.SSLObject):
        pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Own
    [listener] = await open_listeners(Endpoint.parse("tailrace+tls://localhost:0"), context)
    await listener.aclose()
    assert context.sslobject_class is Own
    assert contexts[0].sslobject_class is AllRecords
