"""The strategies by name. A strategy is one module with two pure functions, see `edgeloop.search.random`."""

from importlib import import_module
from types import ModuleType

STRATEGIES = {
    "evolution": "edgeloop.search.evolution",
    "gp-ehvi": "edgeloop.search.gp_ehvi",
    "nevergrad": "edgeloop.search.nevergrad",
    "nsga2": "edgeloop.search.nsga2",
    "random": "edgeloop.search.random",
    "tpe": "edgeloop.search.tpe",
}


def strategy(name: str) -> ModuleType:
    """The strategy called `name`. Raises ValueError, listing the known ones, for any other."""
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy '{name}'; expected one of {', '.join(sorted(STRATEGIES))}")
    return import_module(STRATEGIES[name])
