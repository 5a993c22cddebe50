"""Stages, targets and other plug-ins, found by scanning their folder and by entry point.

There is no central table: a file `pipeline/stages/my_stage.py` is the stage
`my-stage`, and a distribution adds more with entry points in the group
`edgesmith.stages` or `edgesmith.targets`. Listing names imports nothing.
Files that start with `_`, and `base.py`, are shared code, not members.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from edgesmith.pipeline.errors import PluginError, SpecError
from edgesmith.pipeline.problems import did_you_mean, listed

if TYPE_CHECKING:
    from typing import Self

    from pydantic import GetCoreSchemaHandler

    from edgesmith.pipeline.stage import Stage
    from edgesmith.targets.base import Target

T = TypeVar("T")
_SHARED = {"base"}


class Registry(Generic[T]):
    """The members of one kind, by name.

    Args:
        kind: what a member is called in messages, such as "stage".
        package: the package whose folder is scanned.
        group: the entry point group.
        base: the class that members extend.
        extra: members given directly; they come before those found.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        group: str,
        base: type[T],
        extra: Mapping[str, type[T]] | None = None,
    ) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._base = base
        self._extra = dict(extra or {})

    def names(self) -> tuple[str, ...]:
        """All names, sorted; imports no member."""
        return tuple(sorted({*self._extra, *self._modules, *self._entry_points}))

    def get(self, name: str) -> type[T]:
        """The class of a member; imports its module.

        Raises:
            SpecError: there is no such member.
            PluginError: it cannot be imported or is not what it should be.
        """
        if name in self._extra:
            return self._extra[name]
        if name in self._modules and name in self._entry_points:
            raise PluginError(
                f"{self.kind} {name!r} is defined twice: {self._modules[name]} and the entry "
                f"point {self._entry_points[name].value}",
                fix="rename or uninstall the entry point",
            )
        if name in self._modules:
            return self._from_module(name)
        if name in self._entry_points:
            return self._from_entry_point(name)
        guess = did_you_mean(name, self.names())
        raise SpecError(
            f"there is no {self.kind} {name!r}",
            fix=f"did you mean {guess!r}?" if guess else f"choose one of {listed(self.names())}",
        )

    def plus(self, extra: Mapping[str, type[T]]) -> Self:
        """This registry with more members; given ones hide those found."""
        joined = {**self._extra, **extra}
        return type(self)(self.kind, self._package, self._group, self._base, joined)

    @cached_property
    def _modules(self) -> dict[str, str]:
        found = importlib.util.find_spec(self._package)
        folders = found.submodule_search_locations if found is not None else None
        files = (file for folder in folders or () for file in Path(folder).glob("*.py"))
        stems = (file.stem for file in files)
        return {
            stem.replace("_", "-"): f"{self._package}.{stem}"
            for stem in stems
            if not stem.startswith("_") and stem not in _SHARED
        }

    @cached_property
    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self._group)}

    def _from_module(self, name: str) -> type[T]:
        path = self._modules[name]
        try:
            module = importlib.import_module(path)
        except ImportError as error:
            raise self._broken(name, path, error) from error
        members = [
            each
            for each in vars(module).values()
            if isinstance(each, type)
            and issubclass(each, self._base)
            and each.__module__ == path
            and not inspect.isabstract(each)
            and each.__dict__.get("name") == name
        ]
        if len(members) != 1:
            raise PluginError(
                f"{path} defines {len(members)} classes that extend {self._base.__name__} "
                f"with name = {name!r}; exactly one was expected",
                fix=f'define one class with `name: ClassVar[str] = "{name}"` there',
            )
        return members[0]

    def _from_entry_point(self, name: str) -> type[T]:
        point = self._entry_points[name]
        try:
            member = point.load()
        except (ImportError, AttributeError) as error:
            raise self._broken(name, point.value, error) from error
        if not (isinstance(member, type) and issubclass(member, self._base)):
            raise PluginError(
                f"the entry point {point.value} of {self.kind} {name!r} is not a class that "
                f"extends {self._base.__name__}",
                fix=f"point it at the class, or uninstall the distribution that brings {name!r}",
            )
        return member

    def _broken(self, name: str, path: str, error: Exception) -> PluginError:
        return PluginError(
            f"{self.kind} {name!r} ({path}) cannot be imported: {type(error).__name__}: {error}",
            fix="install what it needs, or correct or uninstall it",
        )


@dataclass(frozen=True)
class MemberOf:
    """Annotation of a text parameter: it names a member of the registry of a package, such as
    `edgesmith.nas.samplers`, and is refused as a wrong literal would be; imports no member.
    """

    package: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, name: str) -> str:
        plural = self.package.rpartition(".")[2]
        names = Registry(plural, self.package, f"edgesmith.{plural}", object).names()
        if name not in names:
            expected = ", ".join(f"'{each}'" for each in names)
            said = "Input should be {expected}"
            raise PydanticCustomError("literal_error", said, {"expected": expected})
        return name


class TargetRegistry(Registry["Target"]):
    """Targets, also with options behind their name: `cortex-m4@nrf52840,ram=40000`."""

    def get(self, name: str) -> type[Target]:
        base, given = target_options(name)
        target = super().get(base)
        return target.with_options(name, given) if given else target


def target_base(name: str) -> str:
    """The target's name without its options."""
    return name.partition(",")[0].partition("@")[0]


def target_options(name: str) -> tuple[str, dict[str, str]]:
    """A target's text in parts: `name@board,option=value` -> name, {"board": ..., option: value}.

    Raises:
        SpecError: an option without a value, or given twice.
    """
    head, *options = name.split(",")
    base, at, board = head.partition("@")
    pairs = [("board", board)] if at else []
    for option in options:
        key, equals, value = option.partition("=")
        pairs.append((key.strip(), value.strip() if equals else ""))
    given = dict(pairs)
    empty = next((key or "" for key, value in pairs if not key or not value), None)
    if empty is not None or len(given) != len(pairs):
        what = "twice the same option" if empty is None else f"option {empty!r} without a value"
        raise SpecError(
            f"target {name!r} has {what}", fix="write name@board,option=value,option=value"
        )
    return base, given


@dataclass(frozen=True)
class Registries:
    """Everything that is looked up by name."""

    stages: Registry[Stage]
    targets: TargetRegistry

    @classmethod
    def discovered(cls) -> Registries:
        """What is on disk and what installed distributions add."""
        from edgesmith.pipeline.stage import Stage
        from edgesmith.targets.base import Target

        # both bases are abstract on purpose: members extend them
        return cls(
            stages=Registry("stage", "edgesmith.pipeline.stages", "edgesmith.stages", Stage),  # type: ignore[type-abstract]
            targets=TargetRegistry("target", "edgesmith.targets", "edgesmith.targets", Target),  # type: ignore[type-abstract]
        )
