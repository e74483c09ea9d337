"""A bundle: one folder of data that is a model, its contract and the hash of every file."""

from __future__ import annotations

import difflib
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_ser.errors import BundleError
from edge_ser.graph_io import Input, Output
from edge_ser.manifest import MANIFEST_NAME, PACK_NAME, Base, Manifest, TrainingCorpus, check_file_name
from edge_ser.private_file import read_regular_file

__all__ = ["Base", "Bundle", "Input", "Manifest", "Output", "TrainingCorpus", "bundled_names", "find_bundle"]

_MODELS_FOLDER = Path(__file__).parent / "models"
_BLOCK_BYTES = 1 << 20
_LARGEST_MANIFEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are those that its manifest lists."""

    folder: Path
    """Where it lies."""
    manifest: Manifest
    """What it holds."""
    base: Bundle | None = None
    """The bundle whose graph a delta bundle runs; None where it has its own."""

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Bundle:
        """Return the bundle in a folder, every listed file checked against its hash.

        Files that the manifest does not list are never opened. The base of a delta bundle is looked for among the
        bundled models, then beside the folder.

        Raises:
            BundleError: The folder, the manifest, a file or the base is missing, damaged, unsafe or of another version.
        """
        folder = Path(path)
        # Not Path.is_dir or is_file, here and below: they raise for a name that is too long.
        if not os.path.isdir(folder):
            raise BundleError(f"no folder {folder}; need a bundle; see what is bundled: edge-ser models")
        where = folder / MANIFEST_NAME
        try:
            text = read_regular_file(where, _LARGEST_MANIFEST_BYTES)
        except OSError as problem:
            raise BundleError(
                f"cannot read {where} ({problem.strerror}); need a bundle's folder; "
                "see what is bundled: edge-ser models"
            ) from None
        if len(text) > _LARGEST_MANIFEST_BYTES:
            raise BundleError(
                f"{where} is larger than {_LARGEST_MANIFEST_BYTES} bytes, no manifest is; copy the whole bundle again"
            )
        bundle = Bundle(folder, Manifest.from_json(text, str(where)))
        for name in bundle.manifest.needed_files():
            bundle.path(name)
        for name, expected in bundle.manifest.files.items():
            _check_hash(bundle.path(name), expected)
        if bundle.manifest.base is None:
            return bundle
        return replace(bundle, base=_open_base(folder, bundle.manifest))

    @staticmethod
    def write(folder: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
        """Write a bundle and return it, opened.

        It is written beside `folder` and moved there once it opens, so a crash leaves no half bundle.

        Args:
            folder: Where it shall lie; a bundle that lies there is replaced.
            manifest: Its `files` are ignored and computed anew.
            files: Content, or a file to copy, by name.

        Raises:
            BundleError: The result would not open, or something that is no bundle lies at `folder`.
        """
        try:
            # A link stays one: what it leads to is replaced.
            return Bundle._write(Path(folder).resolve(), manifest, files, Path(folder))
        except OSError as problem:
            raise BundleError(
                f"cannot write {folder} ({problem.strerror}); need a folder that can be made there; choose another one"
            ) from None

    @staticmethod
    def _write(target: Path, manifest: Manifest, files: Mapping[str, bytes | Path], said: Path) -> Bundle:
        if target.exists() and not _is_replaceable(target):
            raise BundleError(f"{said} exists and is no bundle; need a new folder; remove it or choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}-{secrets.token_hex(6)}"
        draft.mkdir()
        try:
            hashes = {name: _write_file(draft, name, content) for name, content in files.items()}
            text = replace(manifest, files=hashes).to_json()
            (draft / MANIFEST_NAME).write_text(text, encoding="utf-8")
            opened = Bundle.open(draft)
            _move_into_place(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return replace(opened, folder=said)

    @property
    def identity(self) -> Base:
        """What a delta bundle calls this one."""
        return Base(self.folder.name, _sha256(self.folder / MANIFEST_NAME))

    def path(self, name: str) -> Path:
        """Return the path of a file that the manifest, or that of the base, lists.

        Raises:
            BundleError: Neither lists it, or it leads out of the folder.
        """
        if name not in self.manifest.files:
            if self.base is not None:
                return self.base.path(name)
            listed = ", ".join(sorted(self.manifest.files)) or "nothing"
            raise BundleError(f"{self.folder} lists {listed} in 'files'; need '{name}' there; export the bundle again")
        path = self.folder / name
        if not _stays_inside(path, self.folder):
            raise BundleError(
                f"{path} is a link out of the bundle; need the file itself; copy it there: cp --dereference"
            )
        return path

    def read(self, name: str) -> bytes:
        """Return the content of a file that the manifest lists.

        Raises:
            BundleError: The manifest does not list it, or it cannot be read.
        """
        path = self.path(name)
        try:
            return path.read_bytes()
        except OSError as problem:
            raise BundleError(f"cannot read {path} ({problem.strerror}); copy the whole bundle again") from None


def bundled_names() -> tuple[str, ...]:
    """Return the names of the models inside the package, sorted."""
    return tuple(sorted(manifest.parent.name for manifest in _MODELS_FOLDER.glob(f"*/{MANIFEST_NAME}")))


def find_bundle(name_or_folder: str | os.PathLike[str]) -> Bundle:
    """Return the bundle of a bundled name or of a folder; a bundled name wins over a folder so called.

    Raises:
        BundleError: There is neither, or the bundle does not open.
    """
    wanted = os.fspath(name_or_folder)
    names = bundled_names()
    if wanted in names:
        return Bundle.open(_MODELS_FOLDER / wanted)
    if wanted and os.path.isdir(wanted):
        return Bundle.open(wanted)
    close = difflib.get_close_matches(wanted, names, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "see what is bundled: edge-ser models"
    raise BundleError(
        f"no model '{wanted}'; need a bundle's folder or one of the bundled: {', '.join(names) or 'none'}; {advice}"
    )


def _open_base(folder: Path, manifest: Manifest) -> Bundle:
    wanted = manifest.base
    assert wanted is not None
    seen = []
    for base in (_MODELS_FOLDER / wanted.name, Path(os.path.abspath(folder)).parent / wanted.name):
        if not os.path.isfile(base / MANIFEST_NAME):
            continue
        try:
            is_it = _sha256(base / MANIFEST_NAME) == wanted.sha256
        except OSError:
            continue
        if is_it:
            return _whole(Bundle.open(base), folder, manifest)
        seen.append(base)
    if seen:
        raise BundleError(
            f"{folder} was {_made_from(manifest)} another version of '{wanted.name}' than {seen[-1]}; need the same; "
            f"{_make_again(manifest)}"
        )
    raise BundleError(
        f"{folder} was {_made_from(manifest)} '{wanted.name}', which is neither bundled nor beside it; "
        f"need that bundle's folder there: {folder.parent / wanted.name}"
    )


def _whole(base: Bundle, delta: Path, manifest: Manifest) -> Bundle:
    if base.manifest.base is not None:
        raise BundleError(
            f"{delta} builds on {base.folder}, which is adapted itself; need one with a graph of its own; "
            f"{_make_again(manifest)}"
        )
    return base


def _made_from(manifest: Manifest) -> str:
    return "learnt over" if PACK_NAME in manifest.files else "adapted from"


def _make_again(manifest: Manifest) -> str:
    if PACK_NAME in manifest.files:
        return "learn the language pack again: python -m train.language_pack --help"
    return "adapt again with the clips: edge-ser adapt --help"


def _stays_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # Links in a circle: RuntimeError up to Python 3.12.
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check_hash(path: Path, expected: str) -> None:
    if not os.path.isfile(path):
        raise BundleError(f"{path} is missing; need every file of the manifest; copy the whole bundle again")
    try:
        got = _sha256(path)
    except OSError as problem:
        raise BundleError(f"cannot read {path} ({problem.strerror}); copy the whole bundle again") from None
    if got != expected:
        raise BundleError(
            f"{path} is damaged or changed: its SHA-256 begins {got[:12]}, the manifest expects {expected[:12]}; "
            "copy the whole bundle again"
        )


def _write_file(folder: Path, name: str, content: bytes | Path) -> str:
    check_file_name(name, str(folder))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        try:
            shutil.copyfile(content, path)
        except OSError as problem:
            raise BundleError(f"cannot copy {content} ({problem.strerror}); need the file for '{name}'") from None
    else:
        path.write_bytes(content)
    return _sha256(path)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST_NAME).is_file() or not any(folder.iterdir()))


def _move_into_place(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    old = draft.with_name(f"{draft.name}-old")
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
