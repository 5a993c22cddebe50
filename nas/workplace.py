"""What a worker needs to score candidates, as files and values that travel to it."""

from __future__ import annotations

import copy
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from edgesmith.nas.evaluation import Evaluator, Evidence
from edgesmith.nas.genes import offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.options import SearchOptions
from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.splits import read_split
from edgesmith.pipeline.stage import stage_seed
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.torch_model import load_model
from edgesmith.pipeline.unfinished import STATE
from edgesmith.prune.driver import drawn
from edgesmith.prune.importances.base import Labelled, Scores, importances
from edgesmith.prune.structure import structure_of
from edgesmith.quantize.options import PTQOptions
from edgesmith.targets.base import Target, TargetDescription
from edgesmith.targets.cost import CostModel, cost_model

_SCORES, _WEIGHTS = "scores.npz", "network.safetensors"
_SAMPLES = 256  # that importances look at


@dataclass(frozen=True)
class Workplace:
    """Where a search works.

    Args:
        options: of the search; `quantization` is what candidates are quantized with.
        load, data: output folders of those stages.
        folder: for importances and the super-network's weights.
    """

    spec: Spec
    options: SearchOptions
    quantization: PTQOptions
    load: Path
    data: Path
    folder: Path

    def __call__(self) -> Evaluator:
        """What scores candidates, with the weights that are in the folder.

        Raises:
            CacheError: a file of a stage is missing or damaged.
        """
        joint = self.joint()
        self.restore(joint)
        return self.evaluator(joint)

    @property
    def target(self) -> Target:
        """The target whose costs count."""
        return get_target(self.options.target or self.spec.targets[0])

    @property
    def descriptions(self) -> tuple[TargetDescription, ...]:
        """Of every target that candidates have to run on, the one whose costs count first."""
        names = dict.fromkeys((self.target.name, *self.spec.targets))
        return tuple(get_target(name).describe() for name in names)

    def joint(self) -> Joint:
        """The super-network with the trained model's weights.

        Raises:
            NothingElasticError: nothing in the model can vary.
            SearchError: no format is taken by all targets.
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
        return Evaluator(joint, evidence, self.quantization, self.target, self._costs(), seed=seed)

    def restore(self, joint: Joint) -> bool:
        """Load the weights that were saved; whether there are any.

        Raises:
            CacheError: they cannot be read.
        """
        path = self.folder / _WEIGHTS
        if not path.exists():
            return False
        try:
            joint.network.load_state_dict(safetensors.torch.load_file(path))
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:
            raise CacheError(
                f"the super-network's weights in {path} cannot be read: {type(error).__name__}",
                fix="delete them; training starts again",
            ) from error
        return True

    def weights_digest(self) -> str:
        """SHA-256 of the weights that were saved."""
        with cache_errors(self.folder):
            return hashlib.sha256((self.folder / _WEIGHTS).read_bytes()).hexdigest()

    def save(self, joint: Joint) -> None:
        """Keep the super-network's weights, for workers and for the next start."""
        state = {name: value.clone() for name, value in joint.network.state_dict().items()}
        with cache_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / _WEIGHTS, safetensors.torch.save(state))

    def _costs(self) -> CostModel | None:
        if not self.target.describe().cost_metrics:
            return None
        return cost_model(self.target, self.spec.folder / STATE / "costs")

    def _scores(self, model: nn.Module, shape: tuple[int, ...]) -> dict[str, Scores]:
        """Importance of every unit, measured once."""
        path = self.folder / _SCORES
        if not path.exists():
            groups = structure_of(model, shape, self.options.elasticity.exclude).groups
            few = drawn(read_split(self.data, "train"), _SAMPLES, self.spec.seed)
            data = Labelled(
                torch.from_numpy(few.inputs), torch.from_numpy(few.labels), self.spec.seed
            )
            work = copy.deepcopy(model).eval().requires_grad_(True)
            found = importances().get(self.options.importance)().scores(work, groups, data)
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **found)
            with cache_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, buffer.getvalue())
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
