"""What the tests of the stages start from: a tiny model that has a format but no knowledge, problems, and traces.

Everything is small enough to train in seconds and runs on one device unless a test says otherwise.
"""

import dataclasses
import random
from pathlib import Path

import pytest

from tests.stages.command_lines import Inputs, failure, good_inputs
from w2sr_jax.core.config import CheckpointConfig, DataConfig, DecodeConfig, MeshConfig, OptimizerConfig, SamplingConfig
from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.records import Problem, Trace
from w2sr_jax.core.stage_config import GRPOConfig, GRPOLossConfig, SFTConfig, TrainConfig
from w2sr_jax.micro.config import SizeConfig
from w2sr_jax.micro.pretrain import CONTEXT, new_model
from w2sr_jax.micro.tokenizer import save_tokenizer
from w2sr_jax.model import hf
from w2sr_jax.stages import sft

SIZE = SizeConfig(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=1)
ONE_DEVICE = MeshConfig(data=1, fsdp=1, tensor=1)
TRAIN = TrainConfig(dtype="float32", remat="none", scan_layers=False, loss_chunk=32)
DECODE = DecodeConfig(dtype="float32", batch_size=32)


@dataclasses.dataclass(frozen=True)
class Files:
    """Paths of inputs that every test may read and none may write."""

    model: str  # random weights
    # 16 sums whose answer is always 3, so that a policy can find it out; "exact" needs no grading process.
    problems: str
    traces: str  # one trace a problem, answering 1, 2, 3 or 4 at random

    def sft(self, **changes) -> SFTConfig:
        """Eight steps of a few rows, float32, on one device."""
        data = DataConfig(problems=self.problems, traces=self.traces, template="plain", max_length=32, batch_size=4)
        config = SFTConfig(
            model=self.model,
            data=data,
            steps=8,
            optimizer=OptimizerConfig(learning_rate=1e-2, warmup_ratio=0.0),
            train=TRAIN,
            checkpoint=CheckpointConfig(every_steps=3, keep_last=1),
            export_dtype="float32",
            mesh=ONE_DEVICE,
        )
        return dataclasses.replace(config, **changes)

    def grpo(self, model: str, **changes) -> GRPOConfig:
        """A few on-policy steps on four problems, four samples each."""
        config = GRPOConfig(
            model=model,
            problems=self.problems,
            template="plain",
            steps=3,
            prompts_per_step=4,
            minibatch_prompts=4,
            sampling=SamplingConfig(max_tokens=6, temperature=1.0, n=4),
            loss=GRPOLossConfig(kl=0.0),
            optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0),
            train=TRAIN,
            decode=DECODE,
            checkpoint=CheckpointConfig(every_steps=2, keep_last=1),
            export_dtype="float32",
            mesh=ONE_DEVICE,
        )
        return dataclasses.replace(config, **changes)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Files:
    root = tmp_path_factory.mktemp("inputs")
    save_tokenizer(root / "tokenizer", CONTEXT)
    hf.save(new_model(SIZE, 0), root / "model", "float32", tokenizer_from=root / "tokenizer")
    rng = random.Random(0)
    problems = [
        Problem(id=f"p{i:02d}", problem=f"{i:02d}+{3 + i % 2}=?", answer="3", verifier="exact") for i in range(16)
    ]
    traces = [answer(p.id, f"\\boxed{{{rng.randint(1, 4)}}}") for p in problems]
    write_jsonl(root / "problems.jsonl", problems)
    write_jsonl(root / "traces.jsonl", traces)
    return Files(str(root / "model"), str(root / "problems.jsonl"), str(root / "traces.jsonl"))


def answer(problem_id: str, response: str) -> Trace:
    return Trace(
        problem_id=problem_id, sample=0, response=response, response_tokens=4, finish_reason="stop", teacher="t"
    )


@pytest.fixture(scope="session")
def guesser(files, tmp_path_factory) -> Path:
    r"""A training workdir whose model answers \boxed{1} to \boxed{4} at random: right about one time in four."""
    root = tmp_path_factory.mktemp("guesser")
    sft.main(files.sft(steps=60, checkpoint=CheckpointConfig(every_steps=0, keep_last=1)), str(root))
    return root


@pytest.fixture(scope="session")
def one_device() -> MeshConfig:
    return ONE_DEVICE


@pytest.fixture(scope="session")
def decode() -> DecodeConfig:
    return DECODE


class Killed(Exception):
    """Raised where a test ends a stage."""


@pytest.fixture
def kill_in(monkeypatch):
    """kill_in(module, name, after): the function that module.name(...) makes raises Killed at its call `after`."""

    def patch(module, name, after):
        make = getattr(module, name)

        def made(*args, **options):
            step, calls = make(*args, **options), 0

            def counted(*inner):
                nonlocal calls
                calls += 1
                if calls > after:
                    raise Killed
                return step(*inner)

            return counted

        monkeypatch.setattr(module, name, made)
        return monkeypatch.undo

    return patch


@pytest.fixture
def killed() -> type[Killed]:
    return Killed


@pytest.fixture(scope="session")
def inputs(files, tmp_path_factory) -> Inputs:
    """Good inputs of every stage."""
    return good_inputs(files, tmp_path_factory.mktemp("report") / "report.py")


@pytest.fixture
def fails(tmp_path, capsys):
    """fails(stage, argv) -> (exit code, the line on stderr)."""
    return lambda stage, argv: failure(stage, argv, tmp_path / "w", capsys)
