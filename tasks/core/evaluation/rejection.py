"""Why a model is rejected, and which files it ships without."""

from collections.abc import Mapping
from typing import Any

Artifacts = Mapping[Any, dict[str, Any]]  # as in `artifacts.json`, by format


def rejection_reasons(gates: list[dict[str, Any]], artifacts: Artifacts) -> list[str]:
    """A sentence for each gate and each required artifact that said no, with the parameter that has the rule.

    Where no artifact is left to ship, each of them is required.

    Args:
        gates: as in `gates.json`.
    """
    sections = {"gate.rules": gates, "export.rules": _missed(artifacts, required=True)}
    return [
        f"{one['why']} ({section})"
        for section, found in sections.items()
        for one in found
        if not one["passed"]
    ]


def left_out(artifacts: Artifacts) -> list[str]:
    """A sentence for each artifact that said no, and that the model ships without."""
    return [
        f"left out: {fact['why']} (export.rules)"  # which names the file
        for fact in _missed(artifacts, required=False)
    ]


def _missed(artifacts: Artifacts, *, required: bool) -> list[dict[str, Any]]:
    """Those that failed; what earlier versions wrote doesn't say which are required, as all were."""
    ships = any(fact["passed"] for fact in artifacts.values())
    return [
        fact
        for fact in artifacts.values()
        if not fact["passed"] and (not ships or fact.get("required", True)) == required
    ]
