"""Which genes matter: how much worse a forest predicts error or latency when one gene's values are shuffled."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

FEWEST = 10
"""With fewer networks nothing is said."""
TREES, SHUFFLES = 100, 10
COLUMNS = ["figure", "gene", "importance", "std", "networks"]


def importance(state: Mapping[str, Any], device: str) -> pd.DataFrame:
    """The permutation importance (Breiman 2001) of each gene that varies, for the validation RMSE of the trained
    networks and for the latency on `device` of all that were timed: by how much R² falls, mean and std over shuffles.

    Both figures count by their logarithm. The fit is to the very networks that it is judged on: it tells what the
    search has seen, not what it has not.
    """
    trained = [entry for entry in state["candidates"].values() if entry["status"] == "ok"]
    timed = [entry for entry in state["screened"].values() if (entry["costs"].get(device) or {}).get("latency_ms")]
    sources = {
        "validation RMSE": (
            [_genes(entry["genotype"]) | entry["genotype"]["training"] for entry in trained],
            [entry["val_rmse"] for entry in trained],
        ),
        "latency": (
            [_genes(entry["genes"]) for entry in timed],
            [entry["costs"][device]["latency_ms"] for entry in timed],
        ),
    }
    rows = [
        {"figure": figure, "networks": len(values), **row}
        for figure, (genes, values) in sources.items()
        if len(values) >= FEWEST
        for row in _of(genes, np.log(values))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _genes(genotype: Mapping[str, Any]) -> dict[str, Any]:
    """What latency depends on."""
    return {**genotype["architecture"], "precision": genotype["precision"]}


def _of(genes: Sequence[Mapping[str, Any]], values: np.ndarray) -> list[dict[str, Any]]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    names = sorted({name for each in genes for name in each})
    columns = {name: _column([each.get(name) for each in genes]) for name in names}
    columns = {name: column for name, column in columns.items() if len(set(column)) > 1}
    if not columns or np.ptp(values) == 0:
        return []
    table = np.column_stack(list(columns.values()))
    forest = RandomForestRegressor(TREES, random_state=0).fit(table, values)
    found = permutation_importance(forest, table, values, n_repeats=SHUFFLES, random_state=0)
    figures = zip(columns, found.importances_mean, found.importances_std, strict=True)
    return [{"gene": name, "importance": float(mean), "std": float(std)} for name, mean, std in figures]


def _column(values: Sequence[Any]) -> list[float]:
    """Numbers as they are, whatever else by its place among the values; -1 for a gene that is not active."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return [-1.0 if value is None else float(value) for value in values]
    texts = [json.dumps(value) for value in values]
    places = {text: number for number, text in enumerate(sorted(set(texts), key=lambda text: (len(text), text)))}
    return [-1.0 if value is None else float(places[text]) for value, text in zip(values, texts, strict=True)]
