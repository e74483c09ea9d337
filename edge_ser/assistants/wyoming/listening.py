"""Where Wyoming clients connect, and how Home Assistant finds the place."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace
from typing import TypeAlias

from edge_ser.assistants.address import Address
from edge_ser.assistants.unix_socket import make_way, private
from edge_ser.errors import BackendUnavailableError, ConfigError

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
Visitor = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def network(name: str) -> Network:
    """Return the machines that an address or a network names.

    Raises:
        ConfigError: It is neither.
    """
    try:
        return ipaddress.ip_network(name)
    except ValueError as problem:
        raise ConfigError(
            f"got {name!r} for machines that may connect ({problem}); need an address or a network; type, for example, "
            "--allow 192.168.1.20 or --allow 192.168.1.0/24"
        ) from None


def may_connect(peer: object, allowed: Collection[Network]) -> bool:
    """Return whether a client may come in: one of this machine, or of an allowed network.

    Args:
        peer: The other end as the socket names it: address and port first; a Unix socket gives no such tuple.
        allowed: Networks.
    """
    if not isinstance(peer, tuple):
        return True
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or any(address in network for network in allowed)


@contextlib.asynccontextmanager
async def listening(visit: Visitor, address: Address) -> AsyncIterator[Address]:
    """Listen, and yield the address with the port that was given.

    Raises:
        ConfigError: Nothing can listen there.
    """
    try:
        if address.path is None:
            server = await asyncio.start_server(visit, address.host, address.port)
        else:
            await make_way(address.path)
            with private():
                server = await asyncio.start_unix_server(visit, address.path)
    except OSError as problem:
        raise ConfigError(
            f"cannot listen at {address.path or address.netloc} ({problem.strerror or problem}); choose another "
            "address: --uri tcp://127.0.0.1:PORT"
        ) from None
    try:
        async with server:
            port = server.sockets[0].getsockname()[1] if address.path is None else 0
            yield replace(address, port=port)
    finally:
        if address.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(address.path)


@contextlib.asynccontextmanager
async def announced(name: str | None, where: Address) -> AsyncIterator[None]:
    """Tell Home Assistant of the service over zeroconf; without a name nobody is told.

    Raises:
        BackendUnavailableError: zeroconf is not installed.
    """
    if name is None:
        yield
        return
    try:
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
    except ImportError as error:
        raise BackendUnavailableError(
            "zeroconf is not installed, announcing the service needs it. Install it: pip install 'edge-ser[zeroconf]'"
        ) from error
    kind = "_wyoming._tcp.local."
    about = AsyncServiceInfo(kind, f"{name}.{kind}", port=where.port, parsed_addresses=[_own_address(where)])
    announcer = AsyncZeroconf(interfaces=about.parsed_addresses(), ip_version=IPVersion.V4Only)
    try:
        await announcer.async_register_service(about, allow_name_change=True)
        yield
    finally:
        await announcer.async_unregister_all_services()
        await announcer.async_close()


def _own_address(where: Address) -> str:
    """Return the number by which other machines find this one: where it listens, or the way out of here."""
    found = socket.getaddrinfo(where.host, where.port, socket.AF_INET, socket.SOCK_STREAM)
    number = str(found[0][4][0])
    if not ipaddress.ip_address(number).is_unspecified:
        return number
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("224.0.0.251", 5353))  # nothing is sent: the system only chooses the interface
        return str(probe.getsockname()[0])
