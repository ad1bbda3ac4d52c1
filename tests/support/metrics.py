"""Metrics as Prometheus reads them, and as this process counts them."""

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families


def samples(text):
    """Each of Deputy's samples by its name and labels:
    `deputy_proofs_total{trigger="created",verdict="proven"}`.
    """
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {name: value for name, value in found.items() if name.startswith("deputy_")}


class Counted:
    """By how much a metric has grown since this was made."""

    def __init__(self, name, **labels):
        self._name, self._labels = name, labels
        self._before = self._now()

    def _now(self):
        return REGISTRY.get_sample_value(self._name, self._labels) or 0

    @property
    def more(self):
        return self._now() - self._before
