"""Cuts, delays and resets links between processes of a testbed whose channels go through here.

Bytes that a cut holds are not thrown away: TCP would send them again, so they come when the cut is
over. See ``hook/sitecustomize.py`` for how channels come here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Pair = tuple[str, str]
"""Names of processes: from, to."""

_CHUNK = 65536


class Switchboard:
    """Proxies on Unix sockets below ``folder``, a short path; use it as a context manager.

    ``names`` says which process listens at an address. Processes are called ``controller`` and
    ``node-0``, ``node-1``, ...
    """

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, str] = {}
        self.ask = folder / "ask"
        self._folder = folder
        self._numbers = itertools.count()
        self._held: set[Pair] = set()
        self._delays: dict[Pair, float] = {}
        self._refused: set[Pair] = set()
        self._open: dict[asyncio.StreamWriter, tuple[str, str]] = {}
        self._servers: list[asyncio.Server] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- what is done to links ------------------------------------------------------------------

    def hold(self, *pairs: Pair) -> None:
        """Let no bytes through from the first to the second of each pair."""
        self._do(lambda: self._held.update(pairs))

    def delay(self, seconds: float, *pairs: Pair) -> None:
        """Let bytes from the first to the second come so much later."""
        self._do(lambda: self._delays.update(dict.fromkeys(pairs, seconds)))

    def reset(self, *pairs: Pair) -> None:
        """Break the connections between each pair, and refuse new ones."""

        def breaking() -> None:
            self._refused.update(pairs)
            for writer, (caller, target) in list(self._open.items()):
                if self._between((caller, self.names.get(target, target))):
                    writer.transport.abort()

        self._do(breaking)

    def heal(self) -> None:
        """All links are as they were."""

        def clear() -> None:
            self._held.clear()
            self._delays.clear()
            self._refused.clear()
            self._changed.set()
            self._changed = asyncio.Event()

        self._do(clear)

    # --- on its own loop ------------------------------------------------------------------------

    def _do(self, change: Callable[[], None]) -> None:
        async def changing() -> None:
            change()

        asyncio.run_coroutine_threadsafe(changing(), self._loop).result(10)

    def _between(self, pair: Pair) -> bool:
        return pair in self._refused or pair[::-1] in self._refused

    async def _listen(self) -> None:
        self._servers.append(await asyncio.start_unix_server(self._asked, self.ask))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.readline())
        path = self._folder / str(next(self._numbers))
        caller, target = str(question["caller"]), str(question["target"])

        async def connected(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            await self._connect(caller, target, near, back)

        self._servers.append(await asyncio.start_unix_server(connected, path))
        writer.write(f"{path}\n".encode())
        await writer.drain()
        writer.close()

    async def _connect(
        self,
        caller: str,
        target: str,
        near: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        if self._between((caller, self.names.get(target, target))):
            back.transport.abort()
            return
        try:
            if target.startswith("unix:"):
                far, there = await asyncio.open_unix_connection(target.removeprefix("unix:"))
            else:
                host, _, port = target.removeprefix("ipv4:").rpartition(":")
                far, there = await asyncio.open_connection(host, int(port))
        except OSError:
            back.transport.abort()
            return
        self._open[back] = self._open[there] = (caller, target)
        pumps = [
            self._loop.create_task(self._pump(near, there, caller, target, out=True)),
            self._loop.create_task(self._pump(far, back, caller, target, out=False)),
        ]
        self._pumps.update(pumps)
        await asyncio.wait(pumps)
        self._pumps.difference_update(pumps)
        for writer in (back, there):
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        caller: str,
        target: str,
        *,
        out: bool,
    ) -> None:
        """Carry bytes in one direction until one end closes."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        def pair() -> Pair:
            callee = self.names.get(target, target)
            return (caller, callee) if out else (callee, caller)

        async def read() -> None:
            while chunk := await reader.read(_CHUNK):
                due = self._loop.time() + self._delays.get(pair(), 0.0)
                await late.put((due, chunk))
            await late.put((0.0, b""))

        reading = self._loop.create_task(read())
        with contextlib.suppress(OSError):
            try:
                while True:
                    due, chunk = await late.get()
                    if not chunk:
                        break
                    await asyncio.sleep(max(0.0, due - self._loop.time()))
                    while pair() in self._held:
                        await self._changed.wait()
                    writer.write(chunk)
                    await writer.drain()
                writer.write_eof()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
