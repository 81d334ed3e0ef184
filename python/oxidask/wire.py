"""Messages between a Rust parent and its Python child, over a Unix socket.

One message, all integers little-endian ``u64``, the framing of Dask's own comms::

    N | F | len[0] ... len[F-1] | frame[0] ... frame[F-1]

``N`` counts the bytes after it. Frame 0 is a msgpack map with a field ``op``; the other frames are raw bytes
that the map refers to by position (frame 1 is ``parts[0]``).
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

MAX_FRAMES = 1 << 24
"""Most frames of one message; the parent sends one per buffer of a graph."""

MAX_FRAME_BYTES = 1 << 40
"""Longest frame that is believed; memory is taken only as bytes arrive up to `CHUNK` at a time."""

CHUNK = 64 << 20
"""Bytes by which a buffer for a long frame grows, so that a wrong length does not allocate by itself."""

IOV_MAX = 512
"""Buffers handed to one ``sendmsg``; Linux allows 1024."""

_BUFFER = 256 << 10


class WireError(Exception):
    """The parent sent something that is not a message."""


def pack_strings(fields: dict[str, str]) -> bytes:
    """A msgpack map of strings, for what must be said without the msgpack package."""
    out = [bytes([0x80 | len(fields)])]
    for text in (text for pair in fields.items() for text in pair):
        data = text.encode("utf-8", "replace")
        out.append(b"\xdb" + struct.pack(">I", len(data)) + data)
    return b"".join(out)


class Channel:
    """The child's end of the socket. Reading is for one thread; writing is for any."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._input = bytearray(_BUFFER)
        self._view = memoryview(self._input)
        self._start = 0
        self._end = 0
        self._output: list[Any] = []
        self._output_bytes = 0
        self._write_lock = threading.Lock()
        self._packer: Any = None

    # Reading

    def socket(self) -> socket.socket:
        """The socket itself, for who receives descriptors; nothing may have been read before."""
        return self._socket

    def read(self) -> tuple[dict[str, Any], list[bytearray]] | None:
        """The next message as its map and its raw frames, or None when the parent has closed the socket.

        Frames are writable ``bytearray``s: objects that are unpickled onto them may be written to.
        """
        import msgpack

        head = self._exactly(16, at_start=True)
        if head is None:
            return None
        _, count = struct.unpack("<QQ", head)
        if not 1 <= count <= MAX_FRAMES:
            raise WireError(f"message of {count} frames")
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        frames = [self._exactly(length) for length in lengths]
        document = msgpack.unpackb(frames[0], use_list=False, strict_map_key=False)
        return document, frames[1:]

    def pending(self) -> bool:
        """True if more input has arrived, so that the output may wait to be sent together with its answer."""
        return self._end > self._start or bool(select.select([self._socket], [], [], 0)[0])

    def _exactly(self, length: int, at_start: bool = False) -> bytearray | None:
        have = self._end - self._start
        if length <= have:
            self._start += length
            return self._input[self._start - length : self._start]
        if length > MAX_FRAME_BYTES:
            raise WireError(f"frame of {length} bytes")
        out = bytearray(min(length, CHUNK))
        out[:have] = self._view[self._start : self._end]
        self._start = self._end = 0
        while have < length:
            if have == len(out):
                out.extend(bytes(min(CHUNK, length - have)))
            if length - have >= _BUFFER:
                # Long frames go to their own memory without a copy, but not past their end.
                with memoryview(out) as view:
                    got = self._socket.recv_into(view[have:])
            else:
                got = self._socket.recv_into(self._view)
                taken = min(got, length - have)
                out[have : have + taken] = self._view[:taken]
                self._start, self._end = taken, got
                got = taken
            if got == 0:
                if at_start and have == 0:
                    return None
                raise WireError("the parent closed the socket in the middle of a message")
            have += got
        return out

    # Writing

    def write(self, document: dict[str, Any], parts: Sequence[Any] = ()) -> None:
        """Puts a message into the output buffer; see `flush`."""
        import msgpack

        if self._packer is None:
            self._packer = msgpack.Packer
        self.write_packed(msgpack.packb(document, use_bin_type=True), parts)

    def write_packed(self, document: bytes, parts: Sequence[Any] = ()) -> None:
        """As `write`, for a map that is already msgpack."""
        lengths = [len(document), *map(_nbytes, parts)]
        total = 8 * (1 + len(lengths)) + sum(lengths)
        head = struct.pack(f"<{len(lengths) + 2}Q", total, len(lengths), *lengths)
        with self._write_lock:
            self._output.append(head)
            self._output.append(document)
            self._output.extend(parts)
            self._output_bytes += total + 8

    def buffered(self) -> int:
        """Bytes that wait for `flush`."""
        return self._output_bytes

    def flush(self) -> None:
        """Sends what `write` has collected; blocks until the kernel has taken it."""
        with self._write_lock:
            output, self._output, self._output_bytes = self._output, [], 0
            for at in range(0, len(output), IOV_MAX):
                self._send(output[at : at + IOV_MAX])

    def send(self, document: dict[str, Any], parts: Sequence[Any] = ()) -> None:
        """Writes one message and sends it at once."""
        self.write(document, parts)
        self.flush()

    def _send(self, buffers: list[Any]) -> None:
        buffers = [view for buffer in buffers if len(view := memoryview(buffer).cast("B"))]
        while buffers:
            sent = self._socket.sendmsg(buffers)
            while buffers and sent >= len(buffers[0]):
                sent -= len(buffers.pop(0))
            if sent:
                buffers[0] = buffers[0][sent:]


def _nbytes(part: Any) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)
