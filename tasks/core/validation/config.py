"""Parameters of validation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.base.params import MOST, Count, Fraction, Natural, NotNegative, Section, Whole

Severity = Literal["error", "warning", "ignore"]


@dataclass(frozen=True)
class Severities(Section):
    unreadable: Severity
    small: Severity
    too_few: Severity
    imbalance: Severity
    spelling: Severity
    label_conflict: Severity
    duplicate: Severity
    near_duplicate: Severity
    split_conflict: Severity
    group_conflict: Severity
    groups_merged: Severity
    dark: Severity
    light: Severity
    blurry: Severity
    low_information: Severity
    odd_aspect_ratio: Severity
    odd_size: Severity
    shortcut: Severity
    new_class: Severity
    missing_class: Severity
    unexpected_format: Severity
    size_range: Severity
    drift: Severity


@dataclass(frozen=True)
class Validate(Section):
    max_unreadable: Natural
    min_per_class: Annotated[Whole, Field(ge=3, le=MOST)]  # one for each split
    max_imbalance: Count
    min_side: Count
    near_distance: Annotated[Whole, Field(ge=0, le=16)]
    dark: Fraction
    light: Fraction
    blurry: Fraction
    low_information: Fraction
    odd_aspect_ratio: Fraction
    odd_size: NotNegative
    shortcut: Fraction
    severity: Severities
