"""vLLM's own reload, without our remedy for what it forgets; loaded by vLLM's process, not by the tests'."""

from w2sr_jax.engine.vllm_worker import WeightSync


class Forgetful(WeightSync):
    """Keeps the stale copy of a tied head."""

    def load_directory(self, directory: str) -> None:
        self.model_runner.reload_weights(weights_path=directory)
