"""What the registry's scan of published packs flags, found in the syntax tree: a word in a text is no call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

MODULES = {
    "a program is started": {"subprocess", "pty", "multiprocessing", "commands", "popen2"},
    "a network is used": {
        *("socket", "socketserver", "requests", "httpx", "urllib3", "urllib.request", "http.client", "http.server"),
        *("ftplib", "smtplib", "telnetlib", "paramiko", "websocket", "websockets", "aiohttp.client"),
    },
    "a pickle is read": {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"},
    "code is imported by a computed name": {"runpy", "pkgutil", "imp", "zipimport"},
    "memory is reached past Python": {"ctypes", "cffi"},
}
CALLS = {
    "code is made from text": {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"},
    "code is imported by a computed name": {
        *("__import__", "builtins.__import__", "importlib.import_module", "import_module", "importlib.__import__"),
        *("importlib.util.spec_from_file_location", "spec_from_file_location"),
    },
    "a program is started": {"os.system", "os.popen", "os.startfile", "os.fork"},
    "a weak hash": {"hashlib.md5", "hashlib.sha1", "md5", "sha1"},
    "hidden text": {
        *("base64.b64decode", "b64decode", "base64.b85decode", "base64.a85decode", "codecs.decode"),
        *("binascii.unhexlify", "zlib.decompress", "bytes.fromhex"),
    },
    "a network is used": {"torch.hub.load", "torch.hub.load_state_dict_from_url", "hf_hub_download", "urlopen"},
}
PREFIXES = {"a program is started": ("os.exec", "os.spawn", "os.posix_spawn")}
LONGEST_LINE = 1000
"""Of a script that people can read."""

_SCRIPT = {
    "code is made from text": re.compile(r"\beval\s*\(|\bnew\s+Function\s*\(|\bsetTimeout\s*\(\s*[\"'`]"),
    "markup is made from text": re.compile(r"\.(?:inner|outer)HTML\b|\binsertAdjacentHTML\b|\bdocument\.write"),
    "hidden text": re.compile(r"\batob\s*\(|\b_0x[0-9a-f]{3}|(?:\\x[0-9a-fA-F]{2}){8}|String\.fromCharCode\s*\("),
    "another server": re.compile(r"\bimport\s*(?:\(|[^;]*?from)\s*[\"'`]https?:|\bfetch\s*\(\s*[\"'`]https?:"),
}
_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`\\])//[^\n]*", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """``what`` the scan would say of ``name`` in a line of a file."""

    path: str
    line: int
    what: str
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what} ({self.name})"


def scan(path: str, text: str) -> list[Finding]:
    """Findings in a file of the package; only Python and JavaScript can have any."""
    if path.endswith(".py"):
        return [Finding(path, line, what, name) for line, what, name in _python(ast.parse(text))]
    if path.endswith((".js", ".mjs")):
        return [Finding(path, line, what, name) for line, what, name in _script(text)]
    return []


def _python(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            findings = list(_module(node.lineno, node.module))
            for alias in node.names:
                findings = findings or list(_module(node.lineno, f"{node.module}.{alias.name}"))
            yield from findings
        elif isinstance(node, ast.Call):
            yield from _call(node, names)


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What a name in this file stands for: {"b64": "base64.b64decode"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _module(line: int, name: str) -> Iterator[tuple[int, str, str]]:
    parts = name.split(".")
    above = {".".join(parts[: i + 1]) for i in range(len(parts))}
    for what, modules in MODULES.items():
        if above & modules:
            yield line, what, name


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[tuple[int, str, str]]:
    name = _dotted(node.func)
    if name is None:
        return
    first, dot, rest = name.partition(".")
    name = names.get(first, first) + dot + rest
    for what, calls in CALLS.items():
        if name in calls:
            yield node.lineno, what, name
    for what, prefixes in PREFIXES.items():
        if name.startswith(prefixes):
            yield node.lineno, what, name
    if name == "torch.load" and not any(
        word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in node.keywords
    ):
        yield node.lineno, "a pickle is read", "torch.load without weights_only=True"
    if name == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        if node.args[1].value in ("system", "popen", "eval", "exec", "__import__"):
            yield node.lineno, "code is made from text", f"getattr(…, {node.args[1].value!r})"


def _dotted(node: ast.expr) -> str | None:
    """ "os.path.join" of such a name, None of any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _script(text: str) -> Iterator[tuple[int, str, str]]:
    longest = max(enumerate(text.splitlines() or [""], 1), key=lambda line: len(line[1]))
    if len(longest[1]) > LONGEST_LINE:
        yield longest[0], "minified", f"a line of {len(longest[1])} characters"
    # Comments go, their line breaks stay: findings keep their lines.
    code = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    for what, pattern in _SCRIPT.items():
        for match in pattern.finditer(code):
            yield code.count("\n", 0, match.start()) + 1, what, match[0].strip()
