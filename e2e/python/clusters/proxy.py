"""A TCP proxy before a process, which can stop passing on what its callers say."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Listens on a port of its own and passes connections on to `address`.

    While `passing` is not set, nothing that callers send is read, as if the other side had stopped reading.
    """

    def __init__(self, address: str, host: str = "127.0.0.1") -> None:
        _, _, rest = address.partition("://")
        target_host, target_port = rest.rsplit(":", 1)
        self._target = (target_host, int(target_port))
        self._listener = socket.create_server((host, 0))
        self.address = f"tcp://{host}:{self._listener.getsockname()[1]}"
        self.passing = threading.Event()
        self.passing.set()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                # What a caller may send ahead is to be little.
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
                called = socket.create_connection(self._target)
                self._open += [caller, called]
                threading.Thread(target=self._pass, args=(caller, called, self.passing), daemon=True).start()
                threading.Thread(target=self._pass, args=(called, caller, None), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, passing: threading.Event | None) -> None:
        with contextlib.suppress(OSError):
            while True:
                if passing is not None:
                    passing.wait()
                data = source.recv(1 << 16)
                if not data:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.passing.set()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
