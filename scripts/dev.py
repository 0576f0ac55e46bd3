#!/usr/bin/env python3
"""Q-Sched's development commands. `python scripts/dev.py --help` lists them.

Needs nothing but Python 3.10: everything else is found or installed into .venv. To use an environment of your own, name
its interpreter in QSCHED_PYTHON; to use a ComfyUI of your own, name its folder in COMFYUI_PATH.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (before the imports, which an older Python cannot even read)
    sys.exit("Q-Sched needs Python 3.10 or newer; this is Python " + sys.version.split()[0] + ".")

import argparse
import os
import shutil
from pathlib import Path

if not __package__:  # run as a file: Python has put scripts/ itself on the path, but its modules are a package
    sys.path[0] = str(Path(__file__).absolute().parents[1])

from scripts import environment, front_ends, processes, server, suite  # noqa: E402
from scripts.errors import DevError  # noqa: E402
from scripts.layout import CACHE, DEMO_OUTPUT, DIST, ROOT, SERVE_BASE, VENV  # noqa: E402

CACHES = ("__pycache__", ".pytest_cache", ".ruff_cache")


def env(args: argparse.Namespace) -> int:
    """make or complete the environment, and find or download ComfyUI"""
    environment.prepare()
    return 0


def demo(args: argparse.Namespace) -> int:
    """run the whole job in a real ComfyUI and print its table"""
    bench = environment.prepare()
    return processes.run([bench.python, "-m", "scripts.demo", "--host", bench.host.path], cwd=ROOT)


def test(args: argparse.Namespace) -> int:
    """run all tests (further arguments go to pytest)"""
    return suite.run(environment.prepare(), args.rest)


def browsers(args: argparse.Namespace) -> int:
    """run the tests of the page that depend on it in old and new front ends (further arguments go to pytest)"""
    bench = environment.prepare()
    env = {**os.environ, "QSCHED_FRONT_ENDS": " ".join(front_ends.ALL), "QSCHED_HOST_PATH": str(bench.host.path)}
    command = [bench.python, "-m", "pytest", "tests/web", "-m", "front_ends", *args.rest]
    return processes.run(command, cwd=ROOT, env=env)


def bare(args: argparse.Namespace) -> int:
    """run the first minute in an environment with ComfyUI's requirements and ours alone"""
    bench = environment.prepare()
    python = environment.bare(bench.host)
    print(f"Bare:   {python}", flush=True)
    env = {**os.environ, "QSCHED_BARE_PYTHON": str(python), "QSCHED_HOST_PATH": str(bench.host.path)}
    return processes.run([bench.python, "-m", "pytest", "tests/host/test_bare.py", *args.rest], cwd=ROOT, env=env)


def hosts(args: argparse.Namespace) -> int:
    """try the pack in old and new versions of ComfyUI and its kernels (--quick: without the test files)"""
    return processes.run([environment.prepare().python, "-m", "scripts.hosts", *args.rest], cwd=ROOT)


def serve(args: argparse.Namespace) -> int:
    """start ComfyUI with the pack, to try it by hand (arguments after -- go to ComfyUI)"""
    bench = environment.prepare()
    flags = [*([] if args.gpu else server.CPU), *args.rest]
    with server.running(bench.host, bench.python, base=args.base.absolute(), port=args.port, flags=flags) as comfy:
        print(f"Open {comfy.client.base_url} (stop with Ctrl-C)\nFiles in {comfy.base}", flush=True)
        try:
            return comfy.process.wait()
        except KeyboardInterrupt:  # the way this command is meant to end
            return 0


def train(args: argparse.Namespace) -> int:
    """train the demo model anew (further arguments go to demo.train)"""
    return processes.run([environment.prepare().python, "-m", "demo.train", *args.rest], cwd=ROOT)


def attack(args: argparse.Namespace) -> int:
    """attack the pack with hostile files, names, kills and scripts (arguments name kinds, such as soak)"""
    bench = environment.prepare()
    return processes.run([bench.python, "-m", "benchmarks.attack", *args.rest], cwd=ROOT)


def package(args: argparse.Namespace) -> int:
    """build the package as the registry gets it, check it, and load it in a clean ComfyUI"""
    bench = environment.prepare()
    return processes.run([bench.python, "-m", "scripts.package", "--host", bench.host.path], cwd=ROOT)


def lint(args: argparse.Namespace) -> int:
    """check the code with ruff (further arguments go to ruff)"""
    return processes.run([environment.prepare().python, "-m", "ruff", "check", *(args.rest or ["."])], cwd=ROOT)


def clean(args: argparse.Namespace) -> int:
    """remove what the tools and the demo left; with --all also .venv and the downloaded ComfyUI"""
    places = [DEMO_OUTPUT, DIST, *(ROOT / name for name in CACHES)]
    own = [entry for entry in ROOT.iterdir() if entry.is_dir() and entry not in (VENV, CACHE)]
    places += [folder for entry in own for folder in entry.rglob("__pycache__")]
    places += [VENV, CACHE] if args.all else []
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    return 0


COMMANDS = (env, demo, test, browsers, bare, hosts, serve, train, attack, package, lint, clean)
FORWARDING = {command.__name__: command for command in (test, browsers, bare, hosts, train, attack, lint)}


def parser() -> argparse.ArgumentParser:
    """The command line: one subcommand for each function above, described by its docstring."""
    top = argparse.ArgumentParser(prog="dev.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    commands = {}
    for command in COMMANDS:
        commands[command] = subparsers.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        commands[command].set_defaults(run=command)
    commands[serve].add_argument("--port", type=int, help="default: any free port")
    commands[serve].add_argument("--base", type=Path, default=SERVE_BASE, help="where models and pictures are kept")
    commands[serve].add_argument("--gpu", action="store_true", help="use the GPU if ComfyUI finds one")
    commands[clean].add_argument("--all", action="store_true", help="also .venv and the downloaded ComfyUI")
    return top


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line into `run` (the function) and what it needs; `rest` goes on to another program."""
    if argv and argv[0] in FORWARDING:  # all of it, --help included: argparse would take some for its own
        return argparse.Namespace(run=FORWARDING[argv[0]], rest=argv[1:])
    own = argv[: argv.index("--")] if "--" in argv else argv
    return parser().parse_args(own, argparse.Namespace(rest=argv[len(own) + 1 :]))


def main(argv: list[str]) -> int:
    """Run one command; its exit status."""
    args = parse(argv)
    processes.exit_on_termination()
    try:
        return args.run(args)
    except DevError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
