"""A server for the whole module: processes that start at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.trust.server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()
