"""Results of measurements: the JSON of the command line as a dictionary."""

from __future__ import annotations

import html
from typing import Any

# Phases of an energy estimate, as its JSON names them.
_PHASES = ("prefill", "decode")


class Result(dict[str, Any]):
    """What a command prints as JSON. ``run`` says which run it is of, as ``snnc verify`` needs it."""

    def to_pandas(self) -> Any:
        """The figures as a table of pandas: what the command prints as CSV.

        Of ``energy`` a row per phase, block, form and price list, in picojoules per token; of ``tune`` and of several programs a
        row each; else one row. Lists are left out. Raises ``ImportError`` without pandas.
        """
        import pandas

        return pandas.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``to_pandas`` as dictionaries."""
        if self.get("schema", "").startswith("snnc.energy."):
            return [
                {
                    "phase": phase,
                    "block": block,
                    "form": form,
                    "list": prices,
                    "pj_per_token": price["pj"],
                    "partial_pj_per_token": price.get("partial_pj"),
                }
                for phase in _PHASES
                for block, forms in self[phase].items()
                for form, costs in forms.items()
                for prices, price in costs["prices"].items()
            ]
        for many in ("points", "programs"):
            if isinstance(self.get(many), list):
                return [_flat(row) for row in self[many]]
        return [_flat({key: value for key, value in self.items() if key not in ("schema", "run")})]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(key))}</th><td style='text-align:left'>"
            f"{html.escape(_short(value))}</td></tr>"
            for key, value in self.items()
            if key not in ("schema", "run")
        )
        return f"<b>{html.escape(str(self.get('schema', 'result')))}</b><table>{rows}</table>"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": one for name, one in _flat(value).items()})
        elif isinstance(value, list):
            if len(value) == 2 and all(isinstance(one, (int, float)) for one in value):
                flat[f"{key}_low"], flat[f"{key}_high"] = value
        else:
            flat[key] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(map(str, list(value)[:6])) + (" ..." if len(value) > 6 else "")
    if isinstance(value, list):
        return f"{len(value)} items" if len(value) > 4 else ", ".join(map(_short, value))
    return str(value)
