"""Where things are in a checkout. Nothing here is created; each owner makes its own folder."""

from pathlib import Path

# Not resolved: a checkout reached through a link in custom_nodes must be seen as lying in custom_nodes.
ROOT = Path(__file__).absolute().parents[1]

PACK_NAME = "q-sched"
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
BARE_VENV = CACHE / "bare-venv"
TOOLS_VENV = CACHE / "tools-venv"
DIST = ROOT / "dist"
DEMO_OUTPUT = ROOT / "output" / "demo"
SERVE_BASE = ROOT / "output" / "serve"
DEMO_WORKFLOW = ROOT / "example_workflows" / "api" / "demo.json"
NEWER_NODES = ROOT / "scripts" / "workflows" / "newer_nodes"
DEMO_PROMPTS = ROOT / "demo" / "prompts.txt"
TOOL_REQUIREMENTS = ROOT / "requirements-tools.txt"
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
