"""What the package is measured on: `python -m benchmarks --help`."""
