"""Parameters as a person reads them."""

import json
from typing import Any

from tasks.core.base.files import flat

NONE = "not there"


def shown(values: dict[str, Any]) -> dict[str, str]:
    """Parameters by their dotted keys, as params.yaml may write them: 3.0 as 3, a list of rules one by one.

    Where they come from makes no difference: what a rule doesn't set isn't there, and its keys are sorted.
    """
    one_by_one: dict[str, Any] = {}
    for key, value in flat(values).items():
        rules = isinstance(value, (list, tuple)) and value and isinstance(value[0], dict)
        one_by_one |= {f"{key}.{place}": rule for place, rule in enumerate(value)} if rules else {key: value}
    return {key: text(value) for key, value in one_by_one.items()}


def changed(then: dict[str, str], now: dict[str, str]) -> list[tuple[str, str, str]]:
    """What differs between parameters as they are shown: key, value before and value now.

    Rules that both lists have are left out, whatever their places: one more doesn't change all after it.
    """
    then, now = _without(then, now), _without(now, then)
    pairs = [(key, then.get(key, NONE), now.get(key, NONE)) for key in dict.fromkeys([*then, *now])]
    return [(key, before, after) for key, before, after in pairs if before != after]


def _without(values: dict[str, str], others: dict[str, str]) -> dict[str, str]:
    """Parameters but for the rules that a list of the others has, too."""
    known = {(key.rpartition(".")[0], rule) for key, rule in others.items() if _is_rule(key)}
    return {
        key: value
        for key, value in values.items()
        if not (_is_rule(key) and (key.rpartition(".")[0], value) in known)
    }


def _is_rule(key: str) -> bool:
    return key.rpartition(".")[2].isdigit()


def text(value: Any) -> str:
    """A parameter's value, as params.yaml may write it."""
    if isinstance(value, dict):
        keys = [key for key in sorted(value) if value[key] is not None and value[key] is not False]
        return ", ".join(f"{key}: {text(value[key])}" for key in keys)
    whole = isinstance(value, float) and value.is_integer()
    return value if isinstance(value, str) else json.dumps(int(value) if whole else value, ensure_ascii=False)
