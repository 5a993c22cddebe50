"""Which candidate of the front is deployed: the user's rule."""

from __future__ import annotations

from collections.abc import Sequence

from edgesmith.nas.front import knee
from edgesmith.nas.options import BEST, KNEE, rules
from edgesmith.nas.space import Floats
from edgesmith.nas.values import Objective
from edgesmith.pipeline.errors import SearchError


def check_rule(rule: str, objectives: Sequence[Objective]) -> None:
    """Refuse a rule before a long search rather than after it.

    Raises:
        SearchError: it is none, or names a metric that is no objective.
    """
    known = rules([each.metric for each in objectives])
    if rule not in known:
        raise SearchError(
            f"`{rule}` does not say which candidate of the front to choose",
            fix=f"write {' or '.join(known)}",
        )


def chosen_row(rule: str, objectives: Sequence[Objective], losses: Floats) -> int:
    """The row of a front's losses [N, K], N at least 1, that a rule chooses; of equals the first.

    Args:
        rule: as `check_rule` accepts it.
    """
    if rule == KNEE:
        return knee(losses)
    column = [each.metric for each in objectives].index(rule.removeprefix(BEST))
    return int(losses[:, column].argmin())


def cost_of(rule: str, objectives: Sequence[Objective]) -> Objective:
    """The cost that a rule looks at: its own, or the first there is beside accuracy."""
    costs = [each for each in objectives if each.is_cost] or list(objectives)
    return next((each for each in costs if rule == f"{BEST}{each.metric}"), costs[0])
