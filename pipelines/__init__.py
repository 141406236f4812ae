"""Commands, one a module: `python -m pipelines.NAME --help`."""
