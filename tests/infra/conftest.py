"""A real sshd on the loopback, and one at the far end of a long link: started for these tests, ended with them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
import wan
from sample_models import make_model
from servers import Site, Sshd

import edge


@pytest.fixture(scope="session")
def sshd(tmp_path_factory) -> Iterator[Sshd]:
    if reason := servers.why_not():
        pytest.skip(reason)
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def link() -> Iterator[wan.Link]:
    """15 ms there and back, 50 Mbit/s, to a network of its own."""
    if reason := servers.why_not() or wan.why_not():
        pytest.skip(reason)
    link = wan.Link()
    try:
        yield link
    finally:
        link.close()


@pytest.fixture
def site(link, tmp_path) -> Site:
    """A device at the far end of the link."""
    return Site(tmp_path / "site", link)


@pytest.fixture(scope="session")
def enrolment(sshd, tmp_path_factory) -> dict:
    """This machine's: it is every device of these tests."""
    with edge.connect(sshd.device(tmp_path_factory.mktemp("enrolment"))) as session:
        return session.enrol()


@pytest.fixture
def model(tmp_path) -> Path:
    return make_model(tmp_path / "tiny.onnx")
