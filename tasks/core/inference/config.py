"""Parameters of monitoring: the model that is watched, and how far new images may drift."""

from dataclasses import dataclass

from tasks.core.base.params import Count, Fraction, Positive, Section, Share, Switch, Text


@dataclass(frozen=True)
class DriftLimits(Section):
    psi: Positive
    ks: Fraction
    js: Fraction
    significance: Share


@dataclass(frozen=True)
class Monitor(DriftLimits):
    model: Text
    images: Text
    batch_size: Count
    retrain_on_drift: Switch
