"""A TCP forwarder in front of a service, which a test can cut: connections reset, or bytes swallowed."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)

Watch = Callable[[bytes], str | None]
"""Looks at what a client sends: "before" cuts ahead of it, "after" cuts off the answer to it, None lets it pass."""


class Proxy:
    """Forwards to a TCP address or to a Unix socket; threads end with their connections."""

    def __init__(self, target: tuple[str, int] | str, port: int = 0) -> None:
        self._target = target
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self.flows = threading.Event()
        self.flows.set()
        self._refuses = False
        self.watch: Watch | None = None
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def reset(self) -> None:
        """Reset every connection, and every new one."""
        self._refuses = True
        self._end_all()

    def swallow(self) -> None:
        """Keep connections open and take new ones, but let nothing pass."""
        self.flows.clear()

    def restore(self, *, keep: bool = True) -> None:
        """Let everything pass again; without ``keep`` what was open stays silent for ever, as behind a lost route."""
        with self._lock:
            for pair in () if keep else self._pairs:
                pair.is_dead = True
        self._refuses = False
        self.flows.set()

    def close(self) -> None:
        """Stop listening and reset what is open."""
        # A thread that waits in accept would keep the port.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        self.flows.set()

    def _end_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.end()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                pair = _Pair(self, client, self._connect())
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.add(pair)
            if self._refuses:
                pair.end()
            else:
                pair.start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target, timeout=None)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        return server

    def forget(self, pair: _Pair) -> None:
        """Drop a connection that has ended."""
        with self._lock:
            self._pairs.discard(pair)


class _Pair:
    """One connection: the client's socket and ours to the service, a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._cut_at_answer = False
        self.is_dead = False

    def start(self) -> None:
        """Forward in both directions."""
        for method in (self._up, self._down):
            threading.Thread(target=self._run, args=(method,), name="proxy pair", daemon=True).start()

    def end(self) -> None:
        """Reset the client's connection, and close the service's."""
        with suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for one in (self._client, self._server):
            # Closing alone does not wake a thread that reads.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RD if one is self._client else socket.SHUT_RDWR)
            one.close()
        self._proxy.forget(self)

    def _run(self, forward: Callable[[], bool]) -> None:
        with suppress(OSError):
            while forward():
                pass
        if not self.is_dead:
            self.end()

    def _up(self) -> bool:
        data = self._client.recv(_CHUNK)
        self._proxy.flows.wait()
        if self.is_dead:
            return bool(data)
        watch = self._proxy.watch
        cut = watch(data) if watch is not None and data else None
        if cut == "before":
            return False
        self._cut_at_answer = cut == "after"
        self._server.sendall(data)
        return bool(data)

    def _down(self) -> bool:
        data = self._server.recv(_CHUNK)
        self._proxy.flows.wait()
        if self._cut_at_answer:
            return False
        if not self.is_dead:
            self._client.sendall(data)
        return bool(data)
