"""No test reaches beyond this machine."""

import socket

import pytest
from pytest_socket import SocketConnectBlockedError


def test_a_connection_to_another_machine_is_blocked() -> None:
    with pytest.raises((SocketConnectBlockedError, UserWarning)):  # the block warns first, and warnings are errors here
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)  # an address that is reserved for documentation
