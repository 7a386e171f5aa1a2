"""Prices of the energy estimate."""

from __future__ import annotations

import json
from typing import Any

from . import _snnc

__all__ = ["price_lists"]


def price_lists() -> dict[str, dict[str, Any]]:
    """The built-in price lists by name: what each is about, and every price with its source, in picojoules."""
    return json.loads(_snnc.price_lists())
