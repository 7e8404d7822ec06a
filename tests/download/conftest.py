"""The toy server, one for a file of tests."""

import pytest

from toys.server import ToyServer


@pytest.fixture(scope="module")
def running_server():
    toy = ToyServer()
    yield toy
    toy.close()


@pytest.fixture
def toy(running_server):
    """A local server without files, ready to misbehave."""
    running_server.files, running_server.requests, running_server.sent = {}, [], []
    return running_server
