"""What an executor is: it evaluates candidates somewhere, many at a time, whatever happens there.

The evaluation is given as a factory that can be pickled. Each worker calls it once, so models and
data are loaded once per worker; candidates travel as their choices, results as their metrics.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import ConfigDict, Field

from edgesmith.nas.space import Choice
from edgesmith.nas.values import Metrics
from edgesmith.pipeline.errors import EdgesmithError, EvaluationError

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registry

Choices = dict[str, Choice]
Evaluation = Callable[[Choices], Metrics]
"""Raises EdgesmithError where the candidate is to blame."""
Factory = Callable[[], Evaluation]
Count = Annotated[int, Field(ge=1)]
Retries = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Outcome:
    """What became of one evaluation.

    Args:
        error: why the candidate has no metrics; empty where it has.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Loaded:
    """A worker is ready to evaluate."""


@dataclass(frozen=True)
class Broken:
    """No worker could do better: the search has to end.

    Args:
        trace: where it happened; empty for errors that explain themselves.
    """

    message: str
    fix: str
    trace: str = ""

    def error(self) -> EvaluationError:
        """As what the search raises."""
        error = EvaluationError(self.message, fix=self.fix)
        if self.trace:
            error.add_note(self.trace)
        return error


Evaluations = Callable[[Sequence[Choices]], Iterator[tuple[int, Outcome]]]
"""Evaluates a batch; yields the place in it and the outcome of each, in any order.

Raises EvaluationError: the evaluation cannot be loaded, or raised what is not an EdgesmithError.
"""


@dataclass(frozen=True)
class Executor(ABC):
    """One way to evaluate; its fields are its YAML keys."""

    name: ClassVar[str]
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def opened(self, make: Factory) -> AbstractContextManager[Evaluations]:
        """Evaluate with what `make` gives; workers end when the context does.

        Raises:
            ToolMissingError: a package that it needs is not installed.
            SearchError: it cannot start as configured.
        """


def executors() -> Registry[Executor]:
    """All executors, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.nas.executors", "edgesmith.executors"
    return Registry("executor", package, group, Executor)  # type: ignore[type-abstract]


def load(make: Factory) -> Evaluation | Broken:
    """Make the evaluation, in a worker. Errors become values: not every exception can travel."""
    try:
        return make()
    except EdgesmithError as error:
        return Broken(f"what evaluates candidates cannot be loaded: {error.message}", error.fix)
    except Exception as error:  # a user's model and data are loaded here
        return _defect("what evaluates candidates cannot be loaded", error)


def attempt(evaluate: Evaluation, choices: Choices) -> Outcome | Broken:
    """Evaluate one candidate, in a worker."""
    try:
        return Outcome({name: float(value) for name, value in evaluate(choices).items()})
    except EdgesmithError as error:
        return Outcome(error=f"{error.code}: {error.message}")
    except Exception as error:  # of any package; as a value it reaches the search from anywhere
        shown = ", ".join(f"{gene}={choice}" for gene, choice in choices.items())
        return _defect(f"the evaluation of {shown} failed", error)


def _defect(what: str, error: Exception) -> Broken:
    return Broken(
        f"{what}: {type(error).__name__}: {error}",
        "correct what the traceback shows; evaluations so far are kept in the archive",
        "".join(traceback.format_exception(error)),
    )
