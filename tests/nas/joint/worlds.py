"""Super-networks of small networks, made once."""

from __future__ import annotations

from functools import cache

from edgesmith.nas.genes import offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.options import Elasticity
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.costs import QUICK
from tests.nas.nets import make
from tests.prune.nets import Classifier, trained

SHAPE = (3, 8, 8)
FORMATS = ("int8", "int4", "int2"), ("int8", "int16")


@cache
def joint(name: str, target: str = "c-host") -> Joint:
    """Of a network of `tests/nas/nets.py`; not to be trained."""
    model, shape = make(name)
    return joint_of(model, shape, offered(*FORMATS, [get_target(target).describe()]), QUICK)


def classifier(width: int = 16) -> tuple[Classifier, Joint]:
    """A trained one with its super-network, made anew."""
    model = trained(width)
    formats = offered(("int8", "int4"), ("int8",), [get_target("c-host").describe()])
    assert isinstance(model, Classifier)
    found = joint_of(model, SHAPE, formats, QUICK, elasticity=Elasticity(widths=3), divisor=4)
    return model, found
