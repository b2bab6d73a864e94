import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from mdp_client.testing import COMMAND_VARIABLE, Service, find_command, running_service

from client_tests.both import Both
from client_tests.scripted import ScriptedServer
from client_tests.store import StoreServer

DATA = Path(__file__).parents[4] / "shared" / "data"

Connect: TypeAlias = Callable[..., Both]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """Find the command of the environment that runs the tests, whatever the PATH is."""
    os.environ.setdefault(COMMAND_VARIABLE, str(Path(sys.executable).with_name("mdp")))
    found = find_command()
    assert found
    return found


@pytest.fixture(scope="session")
def mdp(command: list[str]) -> Generator[Service]:
    """Run one demo for all tests of the client."""
    with running_service(command) as service:
        settings = f"{service.sandbox_url}/_sandbox/settings"
        httpx.post(settings, json={"limits": "off"}).raise_for_status()
        yield service


@pytest.fixture(scope="module")
def replay(command: list[str]) -> Generator[Service]:
    """Run a demo on real candles."""
    with running_service(command, "--sandbox-data", str(DATA)) as service:
        yield service


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def connect(kind: str) -> Generator[Connect]:
    """Make clients of either kind, by one name; they are closed when the test ends."""
    made = list[Both]()

    def make(url: str, **options: object) -> Both:
        made.append(Both(kind, url, options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect, mdp: Service) -> Both:
    return connect(mdp.url, token=mdp.token)


@pytest.fixture
def scripted() -> Generator[ScriptedServer]:
    with ScriptedServer.running() as server:
        yield server


@pytest.fixture
def store() -> Generator[StoreServer]:
    with StoreServer.running() as server:
        yield server
