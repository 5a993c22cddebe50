"""What a worker needs to score candidates, as files and values that travel to it."""

from __future__ import annotations

import copy
import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import nn

from edgesmith.nas.archive import Archive
from edgesmith.nas.evaluation import Evaluator, Evidence
from edgesmith.nas.finishing import Finishing
from edgesmith.nas.genes import offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.options import SearchOptions
from edgesmith.nas.values import Proposal
from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import adapter, to_data, to_json
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.splits import Split, read_split
from edgesmith.pipeline.stage import Progress, stage_seed
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.torch_model import load_model
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.unfinished import STATE, digest_of
from edgesmith.pipeline.versions import machine
from edgesmith.prune.driver import drawn
from edgesmith.prune.importances.base import Labelled, Scores, importances
from edgesmith.prune.structure import structure_of
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.qat.train import Learning
from edgesmith.targets.base import Target, TargetDescription
from edgesmith.targets.cost import CostModel, cost_model

if TYPE_CHECKING:
    from edgesmith.nas.training import SuperTrained

_SCORES, _WEIGHTS, _FAVOURITES = "scores.npz", "network.safetensors", "favourites.json"
_TUNED, _EVALUATIONS = "training.json", "evaluations"
_SAMPLES = 256  # that importances look at
SEARCHED, CONFIRMED, TRAINED = "trials", "confirmed", "trained"
"""Archives of a search: of the search itself, of the front on all samples, of finalists."""


@dataclass(frozen=True)
class Facts:
    """What scores depend on beside the candidate.

    Args:
        weights: SHA-256 of the super-network's.
        machine: where costs are times; empty where they are counts.
    """

    weights: str
    machine: str


@dataclass(frozen=True)
class Workplace:
    """Where a search works.

    Args:
        options: of the search; `quantization` is what candidates are quantized with.
        load, data: output folders of those stages.
        name: of this search: another one, which asks for other candidates, has another.
        network: folder of importances and super-networks, which other searches share.
        trainings: folder of finalists' trainings, which the stage `quantize` shares.
        scoring: what scores rest on beside the super-network, in a digest.
        expected: facts that have to hold where candidates are scored; anything if not given.
    """

    spec: Spec
    options: SearchOptions
    quantization: PTQOptions
    load: Path
    data: Path
    name: str
    network: Path
    trainings: Path
    scoring: str
    expected: Facts | None = None

    def __call__(self) -> Evaluator:
        """What scores candidates, with the weights that are in the folder.

        Raises:
            CacheError: a file of a stage is missing or damaged, or this is another machine, which
                has not the search's files or would measure other times.
        """
        joint = self.joint()
        restored = self.restore(joint)
        made = self.evaluator(joint)
        found = self.facts(joint, made) if restored else None
        if self.expected is not None and self.expected != found:
            raise CacheError(
                "this worker does not see what the search trained,"
                f" {self.trained_folder(joint) / _WEIGHTS}, or it is another kind of machine and"
                " times on it do not compare",
                fix="let all workers see the spec's folder and the cache at the same paths, and"
                " time CPU targets on machines of one kind",
            )
        return made

    def facts(self, joint: Joint, evaluator: Evaluator) -> Facts:
        """What has to be the same wherever candidates of one search are scored."""
        known = machine()
        here = "" if evaluator.counted else f"{known['architecture']}, {known['processor']}"
        return Facts(self.weights_digest(joint), here)

    def on_all_samples(self) -> Workplace:
        """The same place, where candidates are scored on all of the selection split."""
        return replace(self, options=replace(self.options, scored=None))

    @property
    def target(self) -> Target:
        """The target whose costs count."""
        return get_target(self.options.target or self.spec.targets[0])

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target that candidates have to run on, the one whose costs count first."""
        names = dict.fromkeys((self.target.name, *self.spec.targets))
        return tuple(get_target(name) for name in names)

    @property
    def descriptions(self) -> tuple[TargetDescription, ...]:
        """Of the same."""
        return tuple(each.describe() for each in self.targets)

    def joint(self) -> Joint:
        """The super-network with the trained model's weights.

        Raises:
            NothingElasticError: nothing in the model can vary.
            SearchError: no format is taken by all targets.
            UnsupportedError: a target does not take the model in any format.
            CacheError: a file cannot be read.
        """
        model = load_model(self.spec, self.load)
        shape = tuple(read_split(self.data, "selection").inputs.shape[1:])
        options = self.options
        formats = offered(options.formats.weights, options.formats.activations, self.descriptions)
        return joint_of(
            model,
            shape,
            formats,
            self.quantization,
            elasticity=options.elasticity,
            scores=self._scores(model, shape),
            divisor=math.lcm(*(each.channel_divisor for each in self.descriptions)),
            targets=[each.describe() for each in self.targets if not each.deploys_exported],
        )

    def evaluator(self, joint: Joint) -> Evaluator:
        """What scores candidates of a super-network."""
        train, calibration, selection = (
            read_split(self.data, name) for name in ("train", "calibration", "selection")
        )
        scored = self.options.scored or len(selection)
        evidence = Evidence(
            drawn(train, self.options.statistics, self.spec.seed).inputs,
            calibration.inputs,
            drawn(selection, scored, self.spec.seed) if scored < len(selection) else selection,
        )
        seed = stage_seed(self.spec.seed, "quantize")
        return Evaluator(
            joint,
            evidence,
            self.quantization,
            self.target,
            self._costs(self.target),
            seed=seed,
            beside=[*self._beside()],
        )

    @property
    def _finishing(self) -> tuple[Training | None, QAT | None]:
        """What finalists go through: fine-tuning, and what the stage `quantize` does. What is
        pruned in between has other weights than what that would train here.
        """
        pruned = self.spec.has_stage("prune")
        return self.options.finetune, None if pruned else self.quantization.qat

    def finishing(self, evaluator: Evaluator, progress: Progress) -> Finishing | None:
        """What trains finalists as the choice will be; None where nothing does."""
        finetune, qat = self._finishing
        if finetune is None and (qat is None or not self.options.finalists):
            return None
        train, selection = (read_split(self.data, name) for name in ("train", "selection"))
        learning = Learning(train, selection, load_model(self.spec, self.load))
        seed = stage_seed(self.spec.seed, "search")
        return Finishing(evaluator, finetune, qat, learning, self.trainings, seed, progress)

    def trained_folder(self, joint: Joint) -> Path:
        """Of one super-network: others have another space, or other formats without a choice."""
        genes = joint.genes
        return self.network / digest_of(to_data([genes.space, genes.formats]))

    @contextmanager
    def training(self, joint: Joint, progress: Progress) -> Iterator[None]:
        """While one search trains a super-network, others that need it wait here."""
        folder = self.trained_folder(joint)
        lock = FileLock(folder / ".lock")
        with cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                progress.report("waiting for a search that trains the same super-network", 0, None)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def archive(
        self, joint: Joint, evaluator: Evaluator, kind: str = SEARCHED
    ) -> Iterator[Archive]:
        """Evaluations of this search, which begins with what others found that rest on the same.

        Args:
            kind: what candidates go through; they are trained only where it says so.

        Raises:
            ArchiveError, CacheError: see `Archive.opened`.
        """
        path, facts = self._archived(joint, evaluator, kind)
        others = sorted(each for each in path.parent.glob("*.jsonl") if each != path)
        with Archive.opened(path, joint.genes.space, facts, others) as opened:
            yield opened

    def archives(self, joint: Joint, evaluators: Mapping[str, Evaluator]) -> dict[str, Path]:
        """Of this search, those that there are.

        Args:
            evaluators: by kind.
        """
        paths = {
            kind: self._archived(joint, evaluator, kind)[0]
            for kind, evaluator in evaluators.items()
        }
        return {kind: path for kind, path in paths.items() if path.exists()}

    def _archived(
        self, joint: Joint, evaluator: Evaluator, kind: str
    ) -> tuple[Path, dict[str, str]]:
        """Where, and what evaluations rest on."""
        known = self.facts(joint, evaluator)
        facts = {
            "weights": known.weights,
            "target": self.target.name,
            "machine": known.machine,
            "samples": str(evaluator.samples),
            "scoring": self.scoring,
            "trained": to_json(self._finishing) if kind == TRAINED else "",
        }
        folder = self.trained_folder(joint) / _EVALUATIONS / digest_of(facts)
        return folder / f"{self.name}.jsonl", facts

    def restore(self, joint: Joint) -> bool:
        """Load the weights that were saved; whether there are any.

        Raises:
            CacheError: they cannot be read.
        """
        path = self.trained_folder(joint) / _WEIGHTS
        if not path.exists():
            return False
        with _reading(path):
            joint.network.load_state_dict(safetensors.torch.load_file(path))
        return True

    def weights_digest(self, joint: Joint) -> str:
        """SHA-256 of the weights that were saved."""
        path = self.trained_folder(joint) / _WEIGHTS
        with cache_errors(path):
            return hashlib.sha256(path.read_bytes()).hexdigest()

    def favourites(self, joint: Joint) -> tuple[Proposal, ...]:
        """Candidates that the strategy of training thought most of, where it learned any.

        Raises:
            CacheError: they cannot be read.
        """
        path, space = self.trained_folder(joint) / _FAVOURITES, joint.genes.space
        if not path.exists():
            return ()
        with _reading(path):
            found = adapter(dict[str, tuple[int, ...]]).validate_json(path.read_bytes())
            return tuple(Proposal(space.canonical(c), f"seed: {name}") for name, c in found.items())

    def tuned(self, joint: Joint) -> Tuned | None:
        """What training of the super-network found; None where there was none.

        Raises:
            CacheError: it cannot be read.
        """
        path = self.trained_folder(joint) / _TUNED
        if not path.exists():
            return None
        with _reading(path):
            return adapter(Tuned).validate_json(path.read_bytes())

    def save(self, joint: Joint, trained: SuperTrained | None) -> None:
        """Keep the super-network's weights, for workers and for whoever needs them next, and what
        its training found; the weights last, since they say that it is done.
        """
        state = {name: value.clone() for name, value in joint.network.state_dict().items()}
        folder = self.trained_folder(joint)
        with cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if trained is not None:
                write_atomically(folder / _TUNED, to_json(trained.tuned).encode())
            if trained is not None and trained.favourites:
                write_atomically(folder / _FAVOURITES, to_json(trained.favourites).encode())
            write_atomically(folder / _WEIGHTS, safetensors.torch.save(state))

    def _costs(self, target: Target) -> CostModel | None:
        if not target.describe().cost_metrics:
            return None
        return cost_model(target, self.spec.folder / STATE / "costs")

    def _beside(self) -> Iterator[tuple[Target, CostModel]]:
        """Other targets with a memory that a candidate may be too large for, and their costs."""
        for each in self.targets[1:]:
            costs = self._costs(each)
            if costs is not None and each.describe().flash_bytes is not None:
                yield each, costs

    def _scores(self, model: nn.Module, shape: tuple[int, ...]) -> dict[str, Scores]:
        """Importance of every unit, measured once."""
        path, options = self.network / _SCORES, self.options
        if not path.exists():
            train = read_split(self.data, "train")
            exclude, seed = options.elasticity.exclude, self.spec.seed
            found = unit_scores(model, shape, train, options.importance, seed, exclude)
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **found)
            with cache_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, buffer.getvalue())
        with _reading(path), np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A file of the folder: what fails in here is the file's damage.

    Raises:
        CacheError: it cannot be read, or does not hold what it should.
    """
    damage = (OSError, RuntimeError, ValueError, safetensors.SafetensorError, zipfile.BadZipFile)
    try:
        yield
    except damage as error:
        raise CacheError(
            f"{path.name}, which the search keeps, cannot be read: {type(error).__name__}",
            fix=f"delete {path.parent}; the search starts again",
        ) from error


def unit_scores(
    model: nn.Module,
    shape: tuple[int, ...],
    train: Split,
    importance: str,
    seed: int,
    exclude: tuple[str, ...] = (),
) -> dict[str, Scores]:
    """Group name -> importance of each of its units, on a few samples.

    Args:
        shape: of one sample.
        importance: a file in `prune/importances/`.
        exclude: shell-style patterns of layers that stay as they are.
    """
    groups = structure_of(model, shape, exclude).groups
    few = drawn(train, _SAMPLES, seed)
    data = Labelled(torch.from_numpy(few.inputs), torch.from_numpy(few.labels), seed)
    work = copy.deepcopy(model).eval().requires_grad_(True)
    return importances().get(importance)().scores(work, groups, data)
