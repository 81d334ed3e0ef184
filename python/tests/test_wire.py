from __future__ import annotations

import socket
import struct
import threading

import msgpack
import pytest
from oxidask.wire import Channel, WireError, pack_strings


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Channel(ours.detach()), Channel(theirs.detach())


def test_messages_come_as_they_were_sent(ends):
    a, b = ends
    a.send({"op": "x", "keys": [("a", 1), 2.5, b"c"]}, [b"", b"part", memoryview(b"view")])
    document, parts = b.read()
    assert document == {"op": "x", "keys": (("a", 1), 2.5, b"c")}
    assert parts == [b"", b"part", b"view"]
    assert all(isinstance(part, bytearray) for part in parts), "parts can be written to"


def test_long_frames_and_the_messages_around_them(ends):
    a, b = ends
    long = bytes(range(256)) * 8192
    messages = [({"n": n}, [b"short", long, b"after"]) for n in range(3)]
    sender = threading.Thread(target=lambda: [a.send(*message) for message in messages])
    sender.start()
    for document, parts in messages:
        assert b.read() == (document, parts)
    sender.join()


def test_more_buffers_than_one_call_takes(ends):
    a, b = ends
    parts = [bytes([n % 256]) * (n % 7) for n in range(3000)]
    a.send({}, parts)
    assert b.read() == ({}, parts)


def test_written_messages_go_together(ends):
    a, b = ends
    a.write({"n": 1})
    assert not b.pending()
    a.write({"n": 2})
    a.flush()
    assert b.pending()
    assert b.read()[0] == {"n": 1}
    assert b.pending(), "the second message was read along with the first"
    assert b.read()[0] == {"n": 2}
    assert not b.pending()


def test_end_between_messages_is_the_end():
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach())
    ours.close()
    assert channel.read() is None


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<2Q", 8, 0),
        struct.pack("<2Q", 8, 1 << 40),
        struct.pack("<3Q", 16, 1, 1 << 60),
        struct.pack("<3Q", 16, 1, 100) + b"too short",
    ],
)
def test_what_is_no_message_is_an_error(data):
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach())
    ours.sendall(data)
    ours.close()
    with pytest.raises(WireError):
        channel.read()


def test_strings_are_packed_without_msgpack():
    fields = {"op": "refuse", "text": "ü" * 70_000}
    assert msgpack.unpackb(pack_strings(fields)) == fields
