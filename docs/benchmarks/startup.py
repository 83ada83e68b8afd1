"""How long the command line takes to answer, with ten plugins installed besides the suite's own.

    python docs/benchmarks/startup.py [RUNS]

Prints the best of RUNS (default 10) wall and CPU times of each command, and their ratio to `python -c pass`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGINS = 10
PLUGIN = '''"""Plugin {number}."""
from pydantic import Field
from unlearn_suite import Config, ObjectiveSpec, hookimpl
class Options(Config):
    """Options."""
    block: int | None = Field(None, ge=0)
    """a block"""
    weight: float = Field(1.0, ge=0)
    """a weight"""
@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("objective-{number}", "summary", "bench_plugin_{number}.code:X", config=Options))
'''
METADATA = "Metadata-Version: 2.1\nName: bench-plugin-{number}\nVersion: 1.0\nRequires-Dist: unlearn-suite>=0.1,<0.2\n"
PLAN = "plan: 1\nproblems: [everyday-knowledge, everyday-toxicity]\narms: {a: {stages: [{use: objective-3}]}}\n"
COMMANDS = (("--help",), ("plugins", "list"), ("plan", "check", "plan.yaml"), ("plugins", "show", "cosine-rmu"))


def install(site: Path) -> None:
    """Ten small plugins, each a package and its metadata."""
    for number in range(PLUGINS):
        package = site / f"bench_plugin_{number}"
        package.mkdir()
        (package / "__init__.py").write_text(PLUGIN.format(number=number))
        info = site / f"bench_plugin_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(number=number))
        (info / "entry_points.txt").write_text(f"[unlearn_suite]\nmain = bench_plugin_{number}\n")


def best(command: list[str], folder: Path, runs: int) -> tuple[float, float]:
    """Smallest wall and CPU seconds of `runs` processes, after one that fills the caches."""
    walls, cpus = [], []
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    for _ in range(runs + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls[1:]), min(cpus[1:])


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site").mkdir()
        install(folder / "site")
        (folder / "plan.yaml").write_text(PLAN)
        (folder / "run.py").write_text("from unlearn_suite.cli import main\nmain()\n")
        base = best([sys.executable, "-c", "pass"], folder, runs)
        print(f"{'command':<44} {'wall s':>7} {'ratio':>6} {'CPU s':>7} {'ratio':>6}")
        print(f"{'python -c pass':<44} {base[0]:7.3f} {1:6.1f} {base[1]:7.3f} {1:6.1f}")
        for arguments in COMMANDS:
            wall, cpu = best([sys.executable, "run.py", *arguments], folder, runs)
            shown = "unlearn-suite " + " ".join(arguments)
            print(f"{shown:<44} {wall:7.3f} {wall / base[0]:6.1f} {cpu:7.3f} {cpu / base[1]:6.1f}")


if __name__ == "__main__":
    main()
