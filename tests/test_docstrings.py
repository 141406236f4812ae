"""What the docstrings show is run, and gives what they say."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("tfrec_feedback", "serving", "pipelines")


def examples(package):
    found = importlib.import_module(package)
    for info in pkgutil.walk_packages(found.__path__, f"{package}."):
        if not info.name.endswith("__main__"):
            yield from doctest.DocTestFinder().find(importlib.import_module(info.name))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_examples_run_as_written(package, capsys):
    runner = doctest.DocTestRunner(verbose=False)
    for example in examples(package):
        runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0, capsys.readouterr().out
