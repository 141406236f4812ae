"""Imports only run downwards: pipelines, training, models, layers, schema."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("tfrec_feedback", "serving", "pipelines")
LEVELS = {
    "": 0,  # tfrec_feedback/__init__.py
    "schema": 0,
    "encodings": 0,
    "features": 0,
    "requests": 0,
    "config": 0,
    "data": 1,
    "layers": 1,
    "losses": 1,
    "metrics": 1,
    "optimizers": 1,
    "models": 2,
    "runs": 3,
    "training": 3,
    "evaluation": 3,
    "feeds": 3,
    "full_ranking": 3,
    "catalogue": 3,
    "denoising": 3,
    "interests": 3,
    "pictures": 3,
    "export": 3,
    "golden": 3,
    "warmup": 3,
    "roads": 3,
    "skew": 3,
    "scorer": 3,
    "benchmark": 3,
}
COMPARED = {f"tfrec_feedback.{name}" for name in ("golden", "roads", "runs", "skew")}
"""What `serving.skew` may know beside the schema: it holds a server against training's own code."""
ALONE = (1, 2)
"""Levels whose members do not import each other."""
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


@cache
def tree(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imported(nodes):
    """Names of the modules that import statements load, submodules included."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (submodules & set(FILES)) or {node.module}
    return names


@cache
def imports(name):
    return imported(ast.walk(tree(name)))


def imports_when_loaded(name):
    """Those at the top of the module: neither in functions nor for type checkers alone."""
    return imported(tree(name).body)


def unit(name):
    """`data` of `tfrec_feedback.data.events`."""
    return (name.split(".") + [""])[1]


def test_every_module_of_the_library_has_a_level():
    units = {unit(name) for name in FILES if name.startswith("tfrec_feedback")}
    assert units == set(LEVELS)


def test_the_library_imports_downwards_only():
    for name in FILES:
        if not name.startswith("tfrec_feedback"):
            continue
        level, own = LEVELS[unit(name)], unit(name)
        for other in imports(name):
            package = other.split(".")[0]
            assert package not in ("serving", "pipelines", "tests"), f"{name} imports {other}"
            if package == "tfrec_feedback" and unit(other) != own:
                below = LEVELS[unit(other)] < level
                beside = LEVELS[unit(other)] == level and level not in ALONE
                assert below or beside, f"{name} imports {other}"


def test_serving_knows_the_schema_and_requests_alone():
    for name in FILES:
        if name.startswith("serving"):
            ours = {o for o in imports(name) if o.split(".")[0] in (*PACKAGES, "tests")}
            allowed = {"tfrec_feedback.schema", "tfrec_feedback.requests"}
            allowed |= COMPARED if name == "serving.skew" else set()
            wrong = {o for o in ours if not o.startswith("serving")} - allowed
            assert not wrong, f"{name} imports {wrong}"


def test_only_the_server_needs_tensorflow():
    names = (
        "embedded",
        "execution",
        "graph_import",
        "inference",
        "loader",
        "manager",
        "request_log",
        "served_model",
    )
    names = (*names, "served_page", "server", "servicer", "settings", "warmup")
    server = {f"serving.{name}" for name in names}
    for name in FILES:
        # The skew check runs the server's loader beside training's code, and is no part of either.
        if name.startswith("serving") and name not in {*server, "serving.skew"}:
            heavy = {o for o in imports(name) if o.split(".")[0] == "tensorflow"} | (
                imports(name) & server
            )
            assert not heavy, f"{name} imports {heavy}"


def test_nothing_imports_commands_or_tests():
    for name in FILES:
        wrong = {o for o in imports(name) if o.split(".")[0] in ("pipelines", "tests")}
        if name.startswith("pipelines"):
            wrong = {o for o in wrong if o.startswith("tests")}
        assert not wrong, f"{name} imports {wrong}"


def test_no_module_loads_itself_in_a_circle():
    done = set()

    def visit(name, path):
        assert name not in path, f"import cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in imports_when_loaded(name) & set(FILES):
                visit(other, [*path, name])
            done.add(name)

    for name in FILES:
        visit(name, [])
    assert done == set(FILES)


def matrix_products(module):
    """Line numbers of `tf.matmul`, `tf.linalg.matmul`, `batch_dot` and `@`."""
    return sorted(
        node.lineno
        for node in ast.walk(module)
        if (isinstance(node, ast.Attribute) and node.attr in ("matmul", "batch_dot"))
        or (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult))
    )


def test_tensors_are_multiplied_by_matmul_in_one_place_alone():
    """A broadcasting `tf.matmul` corrupts the heap under oneDNN; Dense and einsum do not."""
    for name in FILES:
        if "tensorflow" in imports(name) and not name.endswith("layers.products"):
            found = matrix_products(tree(name))
            assert not found, (
                f"{name}, lines {found}: use Dense, tf.einsum, tf.tensordot, batched_product"
            )


def test_keras_is_always_tf_keras():
    for name in FILES:
        wrong = {o for o in imports(name) if o.split(".")[0] in ("keras", "tf_keras")}
        wrong |= {o for o in imports(name) if o.startswith("tensorflow.keras")}
        assert not wrong, f"{name} imports {wrong}"


def test_the_rules_see_what_they_forbid():
    wrong = ast.parse("from pipelines.run import main\nimport serving.client\nx = a @ b")
    assert imported(ast.walk(wrong)) == {"pipelines.run", "serving.client"}
    assert matrix_products(wrong) == [3]
    assert matrix_products(ast.parse("tf.linalg.matmul(a, b)\na @= b")) == [1, 2]
    late = ast.parse("def f():\n    from tfrec_feedback import training\n")
    assert imported(ast.walk(late)) == {"tfrec_feedback.training"}
    assert imported(late.body) == set()
