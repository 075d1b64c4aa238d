"""Asks the cluster's DNS for a name that always exists, to know that it answers."""

from __future__ import annotations

import secrets
import socket
import struct
from ipaddress import IPv4Address

PORT = 53
KNOWN_NAME = "kubernetes.default.svc.cluster.local"
QUERY_TIMEOUT_SECONDS = 1.0

_HEADER = struct.Struct("!6H")
_RECURSION_DESIRED = 0x0100
_RCODE_MASK = 0x000F
_TYPE_A, _CLASS_IN = 1, 1


def query(identifier: int, name: str) -> bytes:
    """A question for a name's IPv4 addresses, in wire format."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    header = _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!2H", _TYPE_A, _CLASS_IN)


def has_answer(identifier: int, response: bytes) -> bool:
    """Whether a response belongs to the question, reports no error and holds an answer."""
    if len(response) < _HEADER.size:
        return False
    answered, flags, _, answers, _, _ = _HEADER.unpack_from(response)
    return bool(answered == identifier and flags & _RCODE_MASK == 0 and answers > 0)


def answers(server: IPv4Address) -> bool:
    """Whether the server resolves the API server's name."""
    identifier = secrets.randbits(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(QUERY_TIMEOUT_SECONDS)
        try:
            s.sendto(query(identifier, KNOWN_NAME), (str(server), PORT))
            return has_answer(identifier, s.recv(4096))
        except OSError:
            return False
