"""Launchers are run for real, with the tools of the cloud replaced by small scripts that log how they were called."""

import dataclasses
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a shell, YAML, JSON, ssh and Kubernetes would each like to change.
AWKWARD = """--config.note=it's "two" words, $HOME $(HOME) & a\\b; *"""


@dataclasses.dataclass
class Host:
    """A directory with launch/, and a PATH on which the test puts fakes before everything else.

    The real cloud tools are shadowed by fakes that fail, so that no test can reach them.
    """

    root: Path
    bin: Path
    log: Path
    environment: dict[str, str]

    def fake(self, tool: str, script: str = "exit 0") -> None:
        """Puts an executable on PATH that appends its words to the log, one call a line, and goes on with `script`."""
        path = self.bin / tool
        path.write_text(
            f"#!/bin/bash\n{{ printf '%q ' {tool} \"$@\"; echo; }} >>{shlex.quote(str(self.log))}\n{script}\n"
        )
        path.chmod(0o755)

    def calls(self, *words: str) -> list[list[str]]:
        """The logged calls that contain all of these words, each as its words."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [call for call in map(shlex.split, lines) if set(words) <= set(call)]

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs launch/`script` and returns what it printed."""
        return subprocess.run(
            [str(self.root / "launch" / script), *arguments],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def fails(self, script: str, *arguments: str, **environment: str) -> str:
        """The one line with which launch/`script` refuses these arguments."""
        done = self.run(script, *arguments, **environment)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()


CLOUD = ("gcloud", "kubectl", "xpk", "sky", "sbatch", "srun", "scontrol", "squeue", "sudo", "gcsfuse")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    root = tmp_path / "a clone"
    shutil.copytree(ROOT / "launch", root / "launch")
    for name in ("uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for git in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *git], cwd=root, check=True)
    (tmp_path / "bin").mkdir()
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SKYPILOT_", "XLA_FLAGS", "JAX_"))
    }
    environment |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    made = Host(root=root, bin=tmp_path / "bin", log=tmp_path / "calls.log", environment=environment)
    for tool in CLOUD:
        made.fake(tool, "echo 'not faked by this test' >&2; exit 99")
    return made
