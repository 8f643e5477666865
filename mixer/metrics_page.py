"""Reads a metrics page (Prometheus text format), as a server or a Prometheus that federates several shows it."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_TIMEOUT_S = 10.0


def read(url: str) -> list[Sample]:
    """Every sample of the page. Raises: OSError where it cannot be had, ValueError where it makes no sense."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]
