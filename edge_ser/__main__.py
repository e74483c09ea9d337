"""The command `edge-ser`, also as `python -m edge_ser`."""

import signal


def run() -> int:
    """Run one command and return its exit status; Ctrl-C while it is still being loaded ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edge_ser.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


if __name__ == "__main__":
    raise SystemExit(run())
