"""The loss of a float network as a function of its weights: values, gradients, Hessian products.

With the loss `divergence`, KL(float || perturbed), the gradient at the float weights is zero and
the Hessian is the Fisher information J^T (diag p - p p^T) J of the predictive distribution,
positive semidefinite (Martens, "New Insights and Perspectives on the Natural Gradient Method",
2020). `squared-error` likewise: its Hessian is J^T J. So the second-order term is the
leading one, without the gradient that HAWQ has to assume away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.network import Network, key, with_steps
from edgesmith.quantize.ops import Softmax
from edgesmith.quantize.sensitivity.subject import Weights
from edgesmith.quantize.sensitivity.values import LossName


@dataclass(frozen=True, eq=False)
class Landscape:
    """A mean loss over samples as a function of the layers' weights.

    Args:
        network: float; its outputs are logits where it ended in a softmax.
        beta: factor of the logits.
        inputs: [N, *sample shape].
        targets: what outputs are compared with: logits or values [N, ...], or labels [N].
    """

    network: Network
    beta: float
    inputs: Tensor
    targets: Tensor
    loss: LossName
    batch_size: int

    def weights(self) -> Weights:
        """The weights that the network has: where the landscape is looked at."""
        steps = self.network.layer_steps()
        return {step.name: self.network.layer(step.name).weight.detach() for step in steps}

    def outputs(self, weights: Weights, x: Tensor) -> Tensor:
        """Logits or values [n, ...] with other weights; layers without an entry keep theirs."""
        named = {f"layers.{key(name)}.weight": value for name, value in weights.items()}
        result: Tensor = functional_call(self.network, named, (x,))
        return result * self.beta

    @torch.no_grad()
    def value(self, weights: Weights) -> float:
        """The mean loss with these weights, summed in float64."""
        total = 0.0
        for x, target in self._batches():
            total += float(self._sum(self.outputs(weights, x), target))
        return total / len(self.inputs)

    def hessian_product(self, vector: Weights) -> Weights:
        """H v, by differentiating the product of gradient and v; layers not in v count as 0."""
        weights = {name: each.clone().requires_grad_() for name, each in self.weights().items()}
        found = {name: torch.zeros_like(each) for name, each in weights.items()}
        for x, target in self._batches():
            loss = self._sum(self.outputs(weights, x), target)
            gradients = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, materialize_grads=True
            )
            pairs = zip(weights, gradients, strict=True)
            dot = torch.stack([(g * vector[n]).sum() for n, g in pairs if n in vector]).sum()
            if not dot.requires_grad:
                continue
            products = torch.autograd.grad(dot, list(weights.values()), materialize_grads=True)
            for name, product in zip(weights, products, strict=True):
                found[name] += product
        return {name: each / len(self.inputs) for name, each in found.items()}

    def sample_gradients(self, generator: torch.Generator) -> Iterator[Weights]:
        """Per sample, the gradient of its negative log-likelihood.

        Labels are the given ones for the loss `labels`, else drawn from the model's own
        prediction: a class from softmax, or a value from a unit normal around the output.
        """
        weights = {name: each.clone().requires_grad_() for name, each in self.weights().items()}
        for x, target in zip(self.inputs, self.targets, strict=True):
            output = self.outputs(weights, x[None])
            drawn = self._drawn(target[None], generator)
            if self.loss == "squared-error":
                loss = 0.5 * (output - drawn).square().sum()
            else:
                loss = F.cross_entropy(_rows(output), drawn.reshape(-1), reduction="sum")
            gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            yield dict(zip(weights, gradients, strict=True))

    def _drawn(self, target: Tensor, generator: torch.Generator) -> Tensor:
        if self.loss == "labels":
            return target
        if self.loss == "squared-error":
            return target + torch.randn(target.shape, generator=generator)
        return torch.multinomial(torch.softmax(_rows(target), 1), 1, generator=generator)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(
            torch.split(self.inputs, self.batch_size),
            torch.split(self.targets, self.batch_size),
            strict=True,
        )

    def _sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        if self.loss == "squared-error":
            return 0.5 * (outputs - target).square().sum()
        if self.loss == "labels":
            return F.cross_entropy(outputs, target, reduction="sum")
        return F.kl_div(
            torch.log_softmax(outputs, -1),
            torch.log_softmax(target, -1),
            log_target=True,
            reduction="sum",
        )


def _rows(outputs: Tensor) -> Tensor:
    """Predictions [m, classes]: the last axis holds the classes."""
    return outputs.reshape(-1, outputs.shape[-1])


@torch.no_grad()
def landscape(
    network: Network,
    inputs: Tensor,
    loss: LossName,
    labels: npt.NDArray[np.int64] | None = None,
    batch_size: int = 64,
) -> Landscape:
    """The landscape around a float network's weights.

    Args:
        inputs: [N, *sample shape].
        labels: [N], for the loss `labels` only.

    Raises:
        QuantizationError: the loss needs labels that are not there, or the network's output
            is not [N, classes].
    """
    beta = 1.0
    last = network.steps[-1].op
    if isinstance(last, Softmax) and loss != "squared-error":
        # Logits: the logarithm of a probability that underflows has no gradient.
        network, beta = with_steps(network, network.steps[:-1]), last.beta
    targets = torch.cat([network(x) for x in torch.split(inputs, batch_size)]) * beta
    if loss == "labels":
        if labels is None or len(labels) != len(inputs) or targets.ndim != 2:
            raise QuantizationError(
                f"the loss 'labels' needs a label for each of {len(inputs)} samples and outputs"
                f" [N, classes], not {tuple(targets.shape)}",
                fix="choose the loss 'divergence', which needs no labels",
            )
        targets = torch.from_numpy(np.ascontiguousarray(labels, np.int64))
    if len(targets) != len(inputs):
        raise QuantizationError(
            f"{len(inputs)} inputs give {len(targets)} outputs", fix="keep the samples on axis 0"
        )
    return Landscape(network, beta, inputs, targets, loss, batch_size)
