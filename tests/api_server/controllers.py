"""One thread in which all controllers and the kubelet work, woken by every change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.api_server.events import Recorder
from tests.api_server.housekeeping import Claims, Garbage, Namespaces, Quotas
from tests.api_server.kubelet import Kubelet
from tests.api_server.logs import Logs
from tests.api_server.portforward import Routes
from tests.api_server.registry import Registry
from tests.api_server.store import Store
from tests.api_server.workloads import Jobs, StatefulSets


class Controllers:
    """Runs from ``start`` to ``stop``. What goes wrong in it is raised by ``stop``."""

    def __init__(self, registry: Registry, record: Recorder, logs: Logs, routes: Routes) -> None:
        self._store: Store = registry.store
        self.namespaces = Namespaces(registry)
        self.claims = Claims(registry, record)
        self.kubelet = Kubelet(registry, record, logs, routes)
        self._syncs: list[Callable[[], None]] = [
            self.namespaces.sync,
            StatefulSets(registry, record).sync,
            Jobs(registry, record).sync,
            self.claims.sync,
            Garbage(registry).sync,
            Quotas(registry).sync,
        ]
        self._paused = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="controllers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the thread, which the store's closing ends.

        Raises: whatever ended it before that.
        """
        self._thread.join(10.0)
        if self._thread.is_alive():
            raise RuntimeError("the controllers do not end")
        if self._failure is not None:
            raise self._failure

    def pause(self, paused: bool) -> None:
        """Whether nothing happens by itself, as when the controllers are down."""
        with self._store as store:
            self._paused = paused
            store.poke()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - the thread's end: stop() raises it
            self._failure = error

    def _work(self) -> None:
        seen, pokes = -1, -1
        due: float | None = None
        while True:
            with self._store as store:

                def awake(seen: int = seen, pokes: int = pokes) -> bool:
                    changed = (store.version, store.pokes) != (seen, pokes)
                    return store.closed or (changed and not self._paused)

                left = None if due is None else max(due - time.monotonic(), 0.0)
                store.changed.wait_for(awake, left)
                if store.closed:
                    return
                seen, pokes, paused = store.version, store.pokes, self._paused
            due = None if paused else self._pass()

    def _pass(self) -> float | None:
        for sync in self._syncs:
            sync()
        return self.kubelet.sync()
