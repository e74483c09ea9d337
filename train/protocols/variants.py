"""The settings file of a protocol: one experiment, its variants, and a table for each protocol."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_ser.errors import ConfigError
from train.protocols.study import Variant
from train.settings import PROTOCOL_TABLES, experiment_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OWN = ("name", "published", "system", "preset", "model", "features", "fit", "encoder", "segment_s")


def read_settings(path: Path) -> dict[str, Any]:
    """Return the content of a settings file.

    Raises:
        ConfigError: No such file, or it is not TOML.
    """
    if not path.is_file():
        raise ConfigError(f"no settings at {path}; need a TOML file, such as those of train/configs")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; mend that line") from None


def protocol_tables(raw: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the tables that belong to protocols."""
    return {name: raw[name] for name in PROTOCOL_TABLES if name in raw}


def variants_of(raw: Mapping[str, Any], folder: Path) -> list[Variant]:
    """Return the variants of a settings file; without [[variants]], the experiment itself.

    A variant takes the experiment's settings and changes those that it names. One of another system begins with that
    system's preset: the experiment's [model] is not its own.

    Args:
        raw: What `read_settings` returned.
        folder: Of the settings file.

    Raises:
        ConfigError: A setting that nobody knows, or two variants of one name.
    """
    base = {name: value for name, value in raw.items() if name not in (*PROTOCOL_TABLES, "variants")}
    listed = raw.get("variants", [])
    if not isinstance(listed, list):
        raise ConfigError("variants is one table; need a list of them: [[variants]]")
    if not listed:
        experiment = experiment_of(base, folder)
        return [Variant(experiment.name, experiment)]
    variants = [_variant(base, entry, folder) for entry in listed]
    names = [variant.name for variant in variants]
    if len(set(names)) != len(names):
        raise ConfigError(f"variants are named {', '.join(names)}; need each name once")
    return variants


def _variant(base: Mapping[str, Any], entry: Mapping[str, Any], folder: Path) -> Variant:
    unknown = sorted(set(entry) - set(_OWN))
    if unknown or "name" not in entry:
        raise ConfigError(f"a variant has {', '.join(unknown) or 'no name'}; need name and some of {', '.join(_OWN)}")
    changed = dict(base)
    if entry.get("system", base.get("system")) != base.get("system"):
        changed.pop("model", None)
    for name in ("system", "preset", "encoder", "segment_s"):
        if name in entry:
            changed[name] = entry[name]
    for name in ("model", "fit"):
        changed[name] = {**changed.get(name, {}), **entry.get(name, {})}
    if "features" in entry:
        # A list names those that stay; a table changes settings of some.
        kept = entry["features"]
        have = base.get("features", {})
        if isinstance(kept, list):
            changed["features"] = {name: have[name] for name in kept if name in have}
        else:
            changed["features"] = {name: {**have.get(name, {}), **kept.get(name, {})} for name in {**have, **kept}}
    return Variant(str(entry["name"]), experiment_of(changed, folder), str(entry.get("published", "")))
