"""`python -m edge_ser` is the command `edge-ser`."""

from edge_ser.cli import main

raise SystemExit(main())
