"""What the code says of itself, read as text: imports, and the parameters that a stage reads."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at its top or anywhere within."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("tasks.core."):
            found.add(str(node.value))  # a module that is run in a process of its own
    return found


def own_files(file: Path) -> set[Path]:
    """Files of this project that a file imports, and theirs in turn, and itself."""
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        candidates = [ROOT / (name.replace(".", "/") + ".py") for name in imports(current)]
        waiting += [path for path in candidates if path.is_file()]
    return seen


def parameters_read(file: Path) -> set[str]:
    """Dotted keys that the function `main` reads as `p.section` or `p.section.key`; all if it passes `p`."""
    (main,) = [n for n in tree(file).body if isinstance(n, ast.FunctionDef) and n.name == "main"]
    nodes = [node for node in ast.walk(main) if isinstance(node, (ast.Attribute, ast.Name))]
    within = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    chains = {_chain(node) for node in nodes if isinstance(node.ctx, ast.Load) and id(node) not in within}
    if "p" in chains:
        return sections_declared(file)
    keys = {chain[2:] for chain in chains if chain and chain.startswith("p.")}
    return {key for key in keys if not any(key.startswith(other + ".") for other in keys)}


def sections_declared(file: Path) -> set[str]:
    """Names of the fields of the class `Params`; none where there is no such class."""
    classes = [node for node in tree(file).body if isinstance(node, ast.ClassDef) and node.name == "Params"]
    fields = [item for node in classes for item in node.body if isinstance(item, ast.AnnAssign)]
    return {field.target.id for field in fields if isinstance(field.target, ast.Name)}


def _chain(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (rest := _chain(node.value)):
        return f"{rest}.{node.attr}"
    return None
