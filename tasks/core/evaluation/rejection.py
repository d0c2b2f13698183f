"""Why a model is rejected."""

from collections.abc import Mapping
from typing import Any


def rejection_reasons(gates: list[dict[str, Any]], artifacts: Mapping[Any, dict[str, Any]]) -> list[str]:
    """A sentence for each gate and each artifact that said no, with the parameter that has the rule.

    Args:
        gates: as in `gates.json`.
        artifacts: as in `artifacts.json`, by format.
    """
    sections = {"gate.rules": gates, "export.rules": artifacts.values()}
    return [
        f"{one['why']} ({section})"
        for section, found in sections.items()
        for one in found
        if not one["passed"]
    ]
