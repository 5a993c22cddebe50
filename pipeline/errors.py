"""Every failure a user can cause or meet, as a value: stable code, subject, expectation and fix.

An error message has three parts, in this order: what is wrong and with which
object, what was expected, and what to do about it. Codes never change meaning;
`docs/errors.md` lists them. Exit codes: 0 fine, 1 a budget was missed, 2 the
spec is wrong, 3 a stage failed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the `edgesmith` command returns."""

    OK = 0
    BUDGET_MISSED = 1
    SPEC_WRONG = 2
    STAGE_FAILED = 3


class EdgesmithError(Exception):
    """Base of all errors that edgesmith raises on purpose.

    Args:
        message: what is wrong, naming the object.
        fix: what the user can do about it.
    """

    code: ClassVar[str] = "ES000"
    exit_code: ClassVar[ExitCode] = ExitCode.STAGE_FAILED

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.code}: {self.message}\n  fix: {self.fix}"


class SpecError(EdgesmithError):
    """The spec or the command line is wrong; nothing was run."""

    code = "ES100"
    exit_code = ExitCode.SPEC_WRONG


class DataError(EdgesmithError):
    """A data split cannot be used as the spec says."""

    code = "ES200"


class OverlappingSplitsError(DataError):
    """Two splits that must be disjoint share samples."""

    code = "ES201"


class EmptySplitError(DataError):
    """A split has no samples."""

    code = "ES202"


class FactoryError(EdgesmithError):
    """A user's factory is missing, raised, or returned something else than promised."""

    code = "ES210"


class CheckpointError(EdgesmithError):
    """A checkpoint is missing, unreadable, unsafe, or does not fit the model."""

    code = "ES220"


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint contains pickled code."""

    code = "ES221"


class NonFiniteWeightsError(CheckpointError):
    """A model has NaN or infinite weights."""

    code = "ES222"


class QuantizationError(EdgesmithError):
    """A model cannot be quantized as the spec says."""

    code = "ES300"


class AllocationError(EdgesmithError):
    """Formats cannot be allocated as asked: nothing to choose, or a malformed problem."""

    code = "ES310"


class UnreachableBudgetError(AllocationError):
    """No choice of formats is within the budgets; the nearest reachable one is named."""

    code = "ES311"


class UnreachableAccuracyError(AllocationError):
    """No allocation that was tried reaches the accuracy asked for; the best one is named."""

    code = "ES312"


class DivergedTrainingError(QuantizationError):
    """Training diverged, and what it had found before is of no use."""

    code = "ES320"


class PruningError(EdgesmithError):
    """A model cannot be pruned as the spec says."""

    code = "ES350"


class EmptyLayerError(PruningError):
    """Pruning would leave a layer without channels."""

    code = "ES351"


class UnreachableCostError(PruningError):
    """No pruned form of the model is as cheap as the spec asks; the cheapest one is named."""

    code = "ES352"


class NotFasterError(PruningError):
    """A pruned model does not cost less than before on the target that it was pruned for."""

    code = "ES353"


class SearchError(EdgesmithError):
    """A search cannot be carried out as the spec says."""

    code = "ES360"


class NothingElasticError(SearchError):
    """A model has nothing that a search could vary."""

    code = "ES361"


class ArchiveError(SearchError):
    """An archive of evaluations is of another search, or another process is writing to it."""

    code = "ES362"


class NothingEvaluatedError(SearchError):
    """No candidate could be evaluated; the commonest reason is quoted."""

    code = "ES363"


class EvaluationError(SearchError):
    """What evaluates candidates cannot be loaded, or has a defect that is not the candidate's."""

    code = "ES364"


class InfeasibleSearchError(SearchError):
    """No candidate keeps all limits; the one that misses them least is given with its numbers."""

    code = "ES365"
    exit_code = ExitCode.BUDGET_MISSED


class LostProcessError(SearchError):
    """A process that trains the super-network with others died."""

    code = "ES366"


class ModelFileError(EdgesmithError):
    """A model file is truncated, hostile or not what its name says."""

    code = "ES400"


class UnsupportedError(EdgesmithError):
    """An operator, format or shape that edgesmith does not take."""

    code = "ES410"


class TargetUnsupportedError(UnsupportedError):
    """An operator or format that the chosen target does not take."""

    code = "ES411"


class ParityError(EdgesmithError):
    """The integers that ship differ from the integers that were scored."""

    code = "ES420"


class KernelMismatchError(EdgesmithError):
    """A deployed operator computes other codes than the reference, beyond the stated budget."""

    code = "ES421"


class DoesNotFitError(EdgesmithError):
    """The model needs more memory than the device, or the limit that the user gave, has."""

    code = "ES430"
    exit_code = ExitCode.BUDGET_MISSED


class ToolMissingError(EdgesmithError):
    """A program or package that a target needs is not installed."""

    code = "ES500"


class ToolFailedError(EdgesmithError):
    """A program that a target ran failed, crashed or hung."""

    code = "ES501"


class TargetUnavailableError(EdgesmithError):
    """No target of the run can run on this machine; what each needs is named."""

    code = "ES502"


class PluginError(EdgesmithError):
    """A stage, target or other plug-in cannot be imported or does not fit its protocol."""

    code = "ES510"


class CacheError(EdgesmithError):
    """The cache or run folder cannot be read or written."""

    code = "ES600"


class StageError(EdgesmithError):
    """A stage failed in a way that nothing more precise describes."""

    code = "ES700"
