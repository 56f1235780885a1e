"""Which addresses a download may speak to: a stranger's page, playlist or redirect can name any of this network."""

import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from marathon_pipeline.errors import Failed

_PORTS = {"http": 80, "https": 443}
_here = threading.local()


@contextmanager
def only_public_but(*urls: str, named: Callable[[str], None]) -> Iterator[None]:
    """Of addresses that are not public, this thread's connections reach those of the URLs and of the environment's
    proxies. Any other raises Failed `private_address`, whoever opens it in this process, and whatever name it had.

    named: called with each host before its address is looked up; may raise Failed.
    """
    _here.allowed = {where for url in (*urls, *getproxies().values()) for where in _addresses_of(url)}
    _here.named = named
    try:
        yield
    finally:
        del _here.allowed, _here.named


def _addresses_of(url: str) -> Iterator[tuple[str, int]]:
    try:
        parts = urlsplit(url)
        found = socket.getaddrinfo(parts.hostname, parts.port or _PORTS.get(parts.scheme, 0), type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # whoever connects to it will say what is wrong
        return
    for *_, where in found:
        yield str(where[0]), int(where[1])


def _watch(event: str, arguments: Sequence[object]) -> None:
    if event == "socket.getaddrinfo" and (named := getattr(_here, "named", None)):
        named(str(arguments[0]))
    if event != "socket.connect" or (allowed := getattr(_here, "allowed", None)) is None:
        return
    where = arguments[1]
    if isinstance(where, tuple) and where[:2] not in allowed and not _is_public(where[0]):
        raise Failed("private_address", f"{where[0]}:{where[1]} is not public, and not what the manifest names")


def _is_public(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_global


# An audit hook sees the address itself, behind every name, redirect and HTTP library.
sys.addaudithook(_watch)
