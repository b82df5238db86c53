"""vLLM's process: `python -m w2sr_jax.engine.vllm_worker`, JSON lines in and out, nothing of JAX.

in   {"model": DIR, "dtype": ..., "max_num_seqs": ..., ...}    once: vLLM's engine arguments
out  {"ready": {"version": ..., "max_model_len": ..., ...}}    once
in   {"do": "generate", "requests": [[prompt, sample, ids, seed, max_tokens], ...], "params": {...}}
out  {"key": [prompt, sample], "token_ids": [...], "logprobs": [...] | null, "stopped": true}    as each ends
     {"done": true}
in   {"do": "update_weights", "directory": DIR}
out  {"done": true}
out  {"refused": "one line"}    instead of answers to requests that vLLM does not accept; nothing has been done
     {"error": "one line"}      instead of any answer; the process ends, since vLLM may be half changed

The end of stdin ends the process, also in the middle of `generate`: a parent that was killed leaves nothing running.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

Send = Callable[[dict[str, Any]], None]


class WeightSync:
    """What vLLM mixes into its own worker class, so that it runs where the weights are."""

    model_runner: Any

    def load_directory(self, directory: str) -> None:
        """Replaces the weights, and what vLLM 0.32 derived from them and forgets to derive again.

        On CPU a linear layer multiplies with a prepacked copy of its weight. A reload packs again only the layers
        that the files name; a head that is tied to the embedding is not among them and would keep the old copy.
        """
        self.model_runner.reload_weights(weights_path=directory)
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        for module in self.model_runner.get_model().modules():
            if isinstance(module, VocabParallelEmbedding):  # the head is one, too
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)

    def describe_worker(self) -> dict[str, Any]:
        """What runs the model."""
        import vllm
        from vllm.platforms import current_platform

        return {
            "device_kind": "cpu" if current_platform.is_cpu() else current_platform.get_device_name(),
            "batch_invariant": bool(vllm.envs.VLLM_BATCH_INVARIANT),
        }


def start(arguments: dict[str, Any]) -> Any:
    """vLLM's engine."""
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    # Token ids in and out: one tokenizer, ours.
    return LLMEngine.from_engine_args(EngineArgs(skip_tokenizer_init=True, disable_log_stats=True, **arguments))


def describe(engine: Any) -> dict[str, Any]:
    """What the parent has to know of the engine."""
    import vllm

    about, *_ = engine.collective_rpc("describe_worker")
    return about | {"version": vllm.__version__, "max_model_len": engine.model_config.max_model_len}


def generate(engine: Any, request: dict[str, Any], send: Send, orphaned: Callable[[], bool]) -> None:
    """Runs all requests together; each is sent as it ends."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    added: list[str] = []
    for index, sample, prompt, seed, max_tokens in request["requests"]:
        # One request a sample: vLLM's own n would give sample s the seed + s, which is another prompt's seed.
        try:
            params = SamplingParams(
                seed=seed,
                max_tokens=max_tokens,
                ignore_eos=True,  # stop_token_ids alone decide
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **request["params"],
            )
            engine.add_request(f"{index}:{sample}", {"prompt_token_ids": prompt}, params)
            added.append(f"{index}:{sample}")
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":  # in a process of its own it runs from the first request on
                raise
            # Nothing has run yet: whatever it is, it is about this request.
            engine.abort_request(added)
            send({"refused": one_line(error)})
            return
    while engine.has_unfinished_requests():
        if orphaned():
            sys.exit("the parent is gone")
        for output in engine.step():
            (completion,) = output.outputs
            if completion.finish_reason not in ("stop", "length"):
                raise RuntimeError(f"request {output.request_id} ended as {completion.finish_reason}")
            ids = list(completion.token_ids)
            send(
                {
                    "key": [int(part) for part in output.request_id.split(":")],
                    "token_ids": ids,
                    "logprobs": completion.logprobs
                    and [at[token].logprob for token, at in zip(ids, completion.logprobs, strict=True)],
                    "stopped": completion.finish_reason == "stop",
                }
            )
    send({"done": True})


def update_weights(engine: Any, directory: str, send: Send) -> None:
    """New weights in every worker; what was computed with the old ones is forgotten."""
    engine.collective_rpc("load_directory", args=(directory,))
    if not engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache still holds keys and values of the old weights")
    send({"done": True})


def serve(commands: Any, send: Send, orphaned: Callable[[], bool]) -> None:
    """Answers every line until there is none."""
    engine = start(json.loads(commands.readline()))
    send({"ready": describe(engine)})
    for line in commands:
        request = json.loads(line)
        match request["do"]:
            case "generate":
                generate(engine, request, send, orphaned)
            case "update_weights":
                update_weights(engine, request["directory"], send)


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def main() -> None:
    """Serves on stdin and stdout, of which vLLM sees neither."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints must not reach the protocol

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    def orphaned() -> bool:
        # Nothing is ever sent to a busy worker, so whatever can be read then is the end.
        return bool(select.select([commands], [], [], 0)[0])

    try:
        serve(commands, send, orphaned)
    except BrokenPipeError:
        return
    except Exception as error:
        sys.excepthook(*sys.exc_info())  # the log keeps the whole of it
        send({"error": one_line(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
