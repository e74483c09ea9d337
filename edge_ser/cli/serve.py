"""`edge-ser serve`: emotions for voice assistants, over WebSocket or Wyoming."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from edge_ser.assistants.address import Address
from edge_ser.cli.options import Commands, add_model, load_model, positive_int, share
from edge_ser.cli.service_log import ServiceLog
from edge_ser.cli.supervision import signs_of_life
from edge_ser.cli.text import discard_output, is_terminal, report
from edge_ser.errors import ConfigError

if TYPE_CHECKING:
    from edge_ser.events import Event
    from edge_ser.recognizer import EmotionRecognizer

Serving: TypeAlias = Callable[["EmotionRecognizer", ServiceLog, asyncio.Event], Awaitable[None]]

_WEBSOCKET_ONLY = ("page", "token_file", "allow_origin", "max_clients")
_WYOMING_ONLY = ("upstream", "allow", "announce", "risk", "events")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve voice assistants",
        description="Takes audio from voice assistants and answers with events; for this machine only, unless told "
        "otherwise. Ctrl-C or SIGTERM finishes the open utterances and ends it.",
        epilog="example: edge-ser serve --page",
    )
    parser.add_argument("--protocol", choices=("websocket", "wyoming"), default="websocket", help="what clients speak")
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, metavar="P", help="port; 0 takes any (default: 8765, of Wyoming 10330)")
    parser.add_argument("--uri", metavar="URI", help="instead of both: tcp://HOST:PORT or unix:///PATH")
    parser.add_argument("--purpose", metavar="TEXT", help="what emotions are inferred for; logged at the start")
    add_model(parser)
    websocket = parser.add_argument_group("websocket")
    websocket.add_argument("--page", action="store_true", help="show a page with a microphone and what is heard")
    websocket.add_argument("--token-file", metavar="FILE", help="holds the token that every client must know")
    websocket.add_argument("--allow-origin", metavar="URL", action="append", help="another web page that may connect")
    websocket.add_argument("--max-clients", type=positive_int, metavar="N", help="clients at once (default: 64)")
    wyoming = parser.add_argument_group("wyoming")
    wyoming.add_argument("--upstream", metavar="URI", help="the speech-to-text service to stand in front of")
    wyoming.add_argument("--allow", metavar="NET", action="append", help="who may connect, as 192.168.1.0/24")
    wyoming.add_argument(
        "--announce",
        nargs="?",
        const="edge-ser",
        metavar="NAME",
        help="let Home Assistant find it (zeroconf), by this name",
    )
    wyoming.add_argument("--risk", type=share, metavar="R", help="accepted share of wrong answers, between 0 and 1")
    wyoming.add_argument("--events", action="store_true", help="write every event to stdout, too, as JSON lines")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from edge_ser.assistants.notice import NOTICE

    _check(arguments)
    serving = _websocket(arguments) if arguments.protocol == "websocket" else _wyoming(arguments)
    # One thread for each utterance: it is the many clients that keep the cores busy.
    recognizer = load_model(argparse.Namespace(**{**vars(arguments), "threads": arguments.threads or 1}))
    report(NOTICE)
    report(f"purpose: {arguments.purpose or 'not stated; say it with --purpose'}")
    with ServiceLog(recognizer.model, report) as log:
        asyncio.run(_until_signal(lambda stop: serving(recognizer, log, stop)))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.uri is not None and (arguments.host is not None or arguments.port is not None):
        arguments.usage_error("--uri and --host or --port exclude each other")
    foreign = _WYOMING_ONLY if arguments.protocol == "websocket" else _WEBSOCKET_ONLY
    for name in foreign:
        if getattr(arguments, name):
            arguments.usage_error(f"--{name.replace('_', '-')} does not go with --protocol {arguments.protocol}")


def _websocket(arguments: argparse.Namespace) -> Serving:
    from edge_ser.assistants.access import checked_origin, read_token
    from edge_ser.assistants.limits import Limits
    from edge_ser.assistants.websocket import DEFAULT_PORT, serve
    from edge_ser.assistants.websocket_door import Door, require_token

    token = None if arguments.token_file is None else read_token(arguments.token_file)
    limits = Limits() if arguments.max_clients is None else Limits(max_clients=arguments.max_clients)
    origins = tuple(checked_origin(url) for url in arguments.allow_origin or ())
    door = Door(_address(arguments, DEFAULT_PORT), token, arguments.page, origins, limits)
    require_token(door)
    if door.shows_page and door.address.path is not None:
        raise ConfigError(
            f"got the socket {door.address.path}; no browser opens a page there; leave out --page or --uri"
        )

    async def serving(recognizer: EmotionRecognizer, log: ServiceLog, stop: asyncio.Event) -> None:
        if arguments.page:
            # A token is for the person at the terminal, not for the log that a service's output becomes.
            log.page_token = token if is_terminal(sys.stderr) else None
            log.shows_page = True
        await serve(recognizer, door, log, stop)

    return serving


def _wyoming(arguments: argparse.Namespace) -> Serving:
    from edge_ser.assistants.wyoming import DEFAULT_PORT, Door, Service, check, serve

    door = Door(_address(arguments, DEFAULT_PORT), tuple(arguments.allow or ()), arguments.announce)
    service = Service(arguments.upstream, arguments.risk, tell=_Lines().write if arguments.events else None)
    check(door, service)

    async def serving(recognizer: EmotionRecognizer, log: ServiceLog, stop: asyncio.Event) -> None:
        await serve(recognizer, door, log, stop, service)

    return serving


class _Lines:
    """Writes events to stdout until nobody reads there any more; the clients are served all the same."""

    def __init__(self) -> None:
        self._is_open = True

    def write(self, event: Event) -> None:
        if not self._is_open:
            return
        try:
            print(event.to_json(), flush=True)
        except OSError as problem:
            self._is_open = False
            discard_output()
            report(f"events are written no more ({problem.strerror}); start again to have them")


def _address(arguments: argparse.Namespace, default_port: int) -> Address:
    if arguments.uri is not None:
        return Address.parse(arguments.uri, default_port)
    host = "127.0.0.1" if arguments.host is None else arguments.host.strip("[]")
    return Address(host, default_port if arguments.port is None else arguments.port)


async def _until_signal(serving: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one aborts."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    signs = asyncio.create_task(signs_of_life())
    try:
        await serving(stop)
    finally:
        signs.cancel()


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= int(text) <= 65_535:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: a whole number from 0 to 65535")
