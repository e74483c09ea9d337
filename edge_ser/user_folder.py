"""Where a user's own files are kept: what an environment variable names, else the place that XDG has for them."""

from __future__ import annotations

import os
from pathlib import Path

from edge_ser.errors import ConfigError


def user_folder(kind: str, *, variable: str, xdg: str, default: str) -> Path:
    """Return the folder of one kind of file: `$variable`, else `edge-ser/KIND` in the user's `$xdg` folder.

    Args:
        kind: What is kept, in the plural, such as `voices`; the folder's name.
        variable: Environment variable that names another folder.
        xdg: Environment variable of the XDG base directory specification; a path that is not absolute is ignored.
        default: Where in the home folder that base is if `xdg` says nothing.

    Raises:
        ConfigError: The user has no home folder.
    """
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen)
    base = os.environ.get(xdg, "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / default) / "edge-ser" / kind
    except RuntimeError:
        raise ConfigError(
            f"this user has no home folder, {kind} need one to be kept in; type: export {variable}=FOLDER"
        ) from None
