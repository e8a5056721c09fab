"""The control plane's listener in a thread of the tests: fixture `control_url`, on the store of `valkey_url`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from canary.api.app import create_app
from canary.metrics import Metrics
from canary.storage.store import Store


async def _serve(server: uvicorn.Server, listener: socket.socket, store: Store) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        await store.close()


@pytest.fixture
def control_url(valkey_url: str) -> Iterator[str]:
    """The admin API on a real socket and a real store, without a controller: nothing moves by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = Store.connect(valkey_url)
        config = uvicorn.Config(create_app(store, Metrics()), log_level="warning", lifespan="off", timeout_keep_alive=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(_serve(server, listener, store),))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
