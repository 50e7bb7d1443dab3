"""Hardware-aware neural architecture search with the real edge device in the loop.

The library behind the workflow's scripts. It knows neither Snakemake nor Fabric.
"""

__version__ = "0.1.0"
