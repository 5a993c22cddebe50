"""User factories: imported from their file or module, called, and their failures named.

A factory's file sees its own folder first when it imports, like a script. The
files of one folder stay loaded; when another folder is used, or a file has
changed, they are forgotten, so that two specs may both have a `model.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from edgesmith.pipeline.errors import EdgesmithError, FactoryError
from edgesmith.pipeline.sources import FactorySource, locate, source_digests

Factory = Callable[..., Any]


@dataclass
class _Loaded:
    """The folder whose files are imported at present, and those files' digests."""

    root: Path | None = None
    digests: dict[Path, str] = field(default_factory=dict)


_loaded = _Loaded()


def call_factory(text: str, args: Mapping[str, Any], folder: Path) -> Any:
    """Resolve a factory and call it with keyword arguments.

    Args:
        folder: where relative paths start: the spec's folder.

    Raises:
        FactoryError: it is missing, or it raised; the message carries the original one.
    """
    factory = resolve_factory(text, folder)
    with user_code(f"factory {text!r}"):
        return factory(**args)


def resolve_factory(text: str, folder: Path) -> Factory:
    """The function or class that a factory names.

    Raises:
        FactoryError: its file or module is missing or cannot be imported, or it is not callable.
    """
    source = locate(text, folder)
    with user_code(f"importing {source.file}"), _no_bytecode():
        _activate(source, folder)
        module = _import(source)
    if not hasattr(module, source.name):
        raise FactoryError(
            f"{source.file} defines no {source.name!r}", fix="define it there, or correct the spec"
        )
    factory = getattr(module, source.name)
    if not callable(factory):
        raise FactoryError(
            f"{text!r} is a {type(factory).__name__}, not a function",
            fix="name a function or a class",
        )
    resolved: Factory = factory
    return resolved


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn whatever user code raises in the body into a `FactoryError`.

    Raises:
        FactoryError: the body raised, or called `sys.exit`.
    """
    try:
        yield
    except EdgesmithError:
        raise
    except (Exception, SystemExit) as error:  # all of it is the user's to see
        raise FactoryError(
            f"{what} raised {type(error).__name__}: {error}{_place(error)}",
            fix="correct it; the stage's log has the traceback",
        ) from error


def _activate(source: FactorySource, folder: Path) -> None:
    """Put the factory's folder first on the import path; forget what is no longer current."""
    root = source.root.resolve()
    names = source_digests(source.text, folder)
    digests = {root / name: digest for name, digest in names.items()}
    edited = any(_loaded.digests.get(file, digest) != digest for file, digest in digests.items())
    if _loaded.root != root or edited:
        _forget()
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        _loaded.root = root
    _loaded.digests |= digests


def _forget() -> None:
    """Undo `_activate`. Modules of this package stay, whatever folder they are in."""
    if _loaded.root is not None:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(_loaded.root))
    for name, module in list(sys.modules.items()):
        own = name == "edgesmith" or name.startswith("edgesmith.")
        if not own and _file_of(module) in _loaded.digests:
            del sys.modules[name]
    _loaded.root = None
    _loaded.digests.clear()


def _import(source: FactorySource) -> ModuleType:
    file = source.file.resolve()
    known = sys.modules.get(source.module)
    if known is None or _file_of(known) == file:
        found = importlib.import_module(source.module)
        if _file_of(found) == file:
            return found
    # the name is taken, by the standard library for example
    name = "_edgesmith_user_" + hashlib.sha256(str(file).encode()).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path).resolve() if path else None


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no __pycache__ beside the user's files: a stale one would hide a quick edit."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _place(error: BaseException) -> str:
    """Where user code raised: the last frame in a loaded file."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file in _loaded.digests:
            place = f" ({file.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
