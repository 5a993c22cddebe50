"""User code read without importing it: where a factory is, what it takes, which files it uses.

A factory is `file.py:name`, relative to the spec, or `package.module:name`.
Its source digests cover the file and every local module that it imports, found
by parsing; installed packages outside its folder enter cache keys by version.
Files that the code reads without being given their paths it declares:

    CACHE_FILES = ("${EDGESMITH_DATA}/weights.npz", "table.csv")

at the top level of any of those modules: plain text, environment variables in
it expanded, relative paths from the folder of the module.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from edgesmith.pipeline.errors import FactoryError

_FACTORY = re.compile(r"(?P<place>[^:]+):(?P<name>[A-Za-z_]\w*)")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_DECLARATION = "CACHE_FILES"
_EXAMPLE = "write `model.py:build_model` or `package.module:build_model`"


@dataclass(frozen=True)
class FactorySource:
    """A factory's place on disk. `root` is the folder that its imports are searched in."""

    text: str
    name: str
    file: Path
    root: Path
    module: str  # dotted name under root


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a function, as far as its source tells."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    open: bool  # takes **kwargs


def locate(text: str, folder: Path) -> FactorySource:
    """Find a factory's file without importing anything.

    Args:
        folder: where relative paths start.

    Raises:
        FactoryError: the text is no factory, or its file or module does not exist.
    """
    match = _FACTORY.fullmatch(text)
    if match is None:
        raise FactoryError(f"{text!r} does not name a factory", fix=_EXAMPLE)
    place, name = match["place"], match["name"]
    if place.endswith(".py"):
        file = folder / place
        if not _is_file(file):
            raise FactoryError(f"there is no file {place!r} in {folder}", fix="check the path")
        return FactorySource(text, name, file, file.parent, file.stem)
    if _MODULE.fullmatch(place) is None:
        raise FactoryError(f"{place!r} is neither a .py file nor a module", fix=_EXAMPLE)
    found = _find_module(place, folder)
    if found is None:
        fix = "install its package, or give a path that ends in .py"
        raise FactoryError(f"there is no module {place!r}", fix=fix)
    root = found.parents[place.count(".") + (found.name == "__init__.py")]
    return FactorySource(text, name, found, root, place)


def parse(source: FactorySource) -> ast.Module:
    """The syntax tree of a factory's file.

    Raises:
        FactoryError: the file cannot be read or is not Python.
    """
    try:
        return ast.parse(source.file.read_bytes(), filename=str(source.file))
    except OSError as error:
        message = f"cannot read {source.file}: {error.strerror}"
        raise FactoryError(message, fix="check the file's permissions") from error
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        message = f"{source.file}{line} is not valid Python: {why}"
        raise FactoryError(message, fix="correct that file") from error


def defined_names(tree: ast.Module) -> frozenset[str] | None:
    """Names that a module's top level defines; None when only running it would tell."""
    names: set[str] = set()
    for statement in _top_level(tree.body):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {(each.asname or each.name).split(".")[0] for each in statement.names}
        else:
            names |= {
                each.id
                for each in ast.walk(statement)
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
    return None if names & {"*", "__getattr__"} else frozenset(names)


def signature(tree: ast.Module, name: str) -> Signature | None:
    """The keyword arguments of a plain top-level function; None where the source cannot tell."""
    found = [
        each
        for each in _top_level(tree.body)
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) and each.name == name
    ]
    if len(found) != 1 or found[0].decorator_list or found[0].args.posonlyargs:
        return None
    arguments = found[0].args
    plain = [each.arg for each in arguments.args]
    optional = set(plain[len(plain) - len(arguments.defaults) :]) if arguments.defaults else set()
    keyword = [each.arg for each in arguments.kwonlyargs]
    optional |= {
        name
        for name, default in zip(keyword, arguments.kw_defaults, strict=True)
        if default is not None
    }
    names = (*plain, *keyword)
    required = tuple(each for each in names if each not in optional)
    return Signature(names, required, arguments.kwarg is not None)


def source_digests(text: str, folder: Path) -> dict[str, str]:
    """SHA-256 of a factory's file and of all local modules it reaches by imports.

    Returns:
        File name relative to the folder that imports start in -> hex digest.

    Raises:
        FactoryError: the factory's file does not exist.
    """
    reached = _reached(locate(text, folder))
    digests = {key: hashlib.sha256(content).hexdigest() for key, _, content in reached}
    return dict(sorted(digests.items()))


def declared_files(text: str, folder: Path) -> dict[str, Path]:
    """Files and folders that a factory's modules declare in `CACHE_FILES`; they may be missing.

    Returns:
        Path as declared, from the folder that imports start in -> path on disk.

    Raises:
        FactoryError: the factory's file does not exist, or a declaration is no plain text.
    """
    found = {}
    for key, file, content in _reached(locate(text, folder)):
        tree = _tree(content)
        for declared in declarations(tree, file) if tree is not None else ():
            path = file.parent / os.path.expandvars(declared)
            rooted = declared.startswith("$") or path == Path(declared)
            found[declared if rooted else (Path(key).parent / declared).as_posix()] = path
    return found


def declarations(tree: ast.Module, file: Path) -> tuple[str, ...]:
    """What one module's `CACHE_FILES` says, as it is written.

    Raises:
        FactoryError: it is not a tuple or list of plain text.
    """
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        else:
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else []
        if not any(isinstance(each, ast.Name) and each.id == _DECLARATION for each in targets):
            continue
        assert isinstance(statement, ast.Assign | ast.AnnAssign)
        value = statement.value
        texts = value.elts if isinstance(value, ast.Tuple | ast.List) else [value]
        found = [each.value if isinstance(each, ast.Constant) else None for each in texts]
        plain = tuple(each for each in found if isinstance(each, str) and each and "\0" not in each)
        if len(plain) != len(texts) or not isinstance(value, ast.Tuple | ast.List):
            raise FactoryError(
                f"{file}:{statement.lineno}: {_DECLARATION} is not a list of plain text; it is "
                "read without running the file",
                fix=f'write `{_DECLARATION} = ("table.csv", "${{DATA}}/images")`',
            )
        return plain
    return ()


def _reached(source: FactorySource) -> Iterator[tuple[str, Path, bytes]]:
    """Name, path and content of a factory's file and of the local modules that it imports."""
    package = source.module.split(".")[0] if source.text.partition(":")[0] == source.module else ""
    seen = set()
    waiting = [source.file]
    while waiting:
        file = waiting.pop()
        key = file.relative_to(source.root).as_posix()
        if key in seen:
            continue
        seen.add(key)
        content = file.read_bytes()
        yield key, file, content
        waiting += _local_imports(content, file, source.root, package)


@lru_cache(maxsize=256)
def _tree(content: bytes) -> ast.Module | None:
    """The syntax tree of a file; None where it is not Python, which running it reports."""
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError):
        return None


def _local_imports(content: bytes, file: Path, root: Path, package: str) -> Iterator[Path]:
    """Files under `root` that a file imports; only of `package` where that is given."""
    tree = _tree(content)
    if tree is None:
        return  # its digest is in the key
    for statement in ast.walk(tree):
        for dotted in _imported(statement, file, root):
            if package and dotted.split(".")[0] != package:
                continue
            yield from _files_of(dotted, root)


def _imported(statement: ast.AST, file: Path, root: Path) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (each.name for each in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        parts = list(file.relative_to(root).parts[:-1])
        above = parts[: len(parts) - statement.level + 1] if statement.level else []
        base = ".".join([*above, *([statement.module] if statement.module else [])])
        if base:
            yield base
        yield from (f"{base}.{each.name}".lstrip(".") for each in statement.names)


def _files_of(dotted: str, root: Path) -> Iterator[Path]:
    """The files that importing `dotted` executes: its packages' `__init__.py` and itself."""
    folder = root
    for part in dotted.split("."):
        for file in (folder / part / "__init__.py", folder / f"{part}.py"):
            if _is_file(file):
                yield file
        folder = folder / part


def _find_module(dotted: str, folder: Path) -> Path | None:
    """The file of a module, asking the import system's finders but importing no parent.

    The spec's folder is searched first, as `factories.py` does when it imports.
    """
    search: list[str] | None = None
    parts = dotted.split(".")
    found: ModuleSpec | None = PathFinder.find_spec(parts[0], [str(folder)])
    for index in range(len(parts)):
        name = ".".join(parts[: index + 1])
        if index > 0 or found is None:
            finders = (each.find_spec(name, search) for each in sys.meta_path)
            found = next((each for each in finders if each is not None), None)
        if found is None:
            return None
        search = list(found.submodule_search_locations or [])
    if found is None or found.origin is None or not _is_file(Path(found.origin)):
        return None
    return Path(found.origin) if found.origin.endswith(".py") else None


def _top_level(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs at import, also inside if, try, with and loops."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement
            continue
        if isinstance(statement, ast.For):
            yield statement.target
        if isinstance(statement, ast.With):
            yield from (each.optional_vars for each in statement.items if each.optional_vars)
        blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        inner = [each for block in blocks for each in block]
        yield from _top_level(inner) if inner else [statement]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False
