"""The import rule of the tree.

core <- {model, data, grading, health, paper} <- {learn, engine, reporting} <- {micro, planning, traces, twin} <- stages
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "w2sr_jax"

# package -> packages of ours that it may import
MAY_IMPORT = {
    "core": set(),
    "model": {"core"},
    "data": {"core"},
    "grading": {"core"},
    "health": {"core"},
    "paper": {"core"},
    "learn": {"core", "model"},
    "engine": {"core", "model", "data", "grading"},
    "reporting": {"core", "grading"},
    "traces": {"core", "model", "data", "grading", "learn"},
    "micro": {"core", "model", "data", "grading", "learn", "engine"},
    "planning": {"core", "model", "data", "learn"},
    "twin": {"core", "model", "data", "learn", "engine"},
    "stages": {
        "core",
        "model",
        "data",
        "grading",
        "learn",
        "engine",
        "reporting",
        "traces",
        "micro",
        "planning",
        "health",
        "twin",
    },
    "cli.py": {"core", "stages"},
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts != ("__init__.py",))


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, as dotted names."""
    tree = ast.parse(path.read_text())
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_the_layers_below_it(path):
    package = path.relative_to(ROOT).parts[0]
    assert package in MAY_IMPORT, f"{package} has no place in the import rule"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "w2sr_jax" and len(parts) > 1 and parts[1] != package:
            assert parts[1] in MAY_IMPORT[package], f"{path.name} imports {name}"


def test_stages_never_import_each_other():
    for path in (ROOT / "stages").glob("*.py"):
        assert not {n for n in imports(path) if n.startswith("w2sr_jax.stages")}, path


def test_grading_and_the_file_formats_need_no_jax():
    files = [ROOT / "core" / f"{name}.py" for name in ("records", "files", "config")]
    for path in [*(ROOT / "grading").glob("*.py"), *files]:
        assert not {n for n in imports(path) if n.split(".")[0] in ("jax", "flax", "optax")}, path


def test_nothing_reads_pickles_or_runs_foreign_code():
    for path in FILES:
        text = path.read_text()
        assert not {n.split(".")[0] for n in imports(path)} & {"pickle", "dill", "cloudpickle", "marshal"}, path
        assert "trust_remote_code=True" not in text, path
        calls = {
            n.func.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        assert not calls & {"eval", "exec"}, path


def test_torch_and_vllm_are_imported_at_the_top_of_the_twin_s_own_files_only():
    twin = {p for p in FILES if p.match("twin/torch_*.py") or p.match("twin/trl_*.py")}
    for path in set(FILES) - twin:
        top = {n.split(".")[0] for n in imports(path, top_level_only=True)}
        assert not top & {"torch", "vllm", "transformers", "trl"}, path
        assert not {n for n in imports(path) if n.startswith(("w2sr_jax.twin.torch_", "w2sr_jax.twin.trl_"))}, path
