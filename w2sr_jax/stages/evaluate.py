"""Pass@1 of a model on one benchmark: greedy, or avg@k and unbiased pass@k from samples.

Writes predictions.jsonl (every graded answer), disagreements.jsonl (where a second grader says otherwise) and
result.json. The stop rate and the answers cut at max_tokens stand beside the accuracy, since a model that never stops
is the commonest way in which this experiment fails; so do the scores by other rules (second grader, first box, last
box, stop at the first box). --config.protocol names a way to ask: prompt, stops, sampling and token budget in one.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from absl import logging

from w2sr_jax.core import cost, processes, runtime
from w2sr_jax.core.config import validate
from w2sr_jax.core.files import made_by_writer, read_json, write_jsonl
from w2sr_jax.core.records import Disagreement, Prediction, Problem, Trace
from w2sr_jax.core.stage_config import EvaluateConfig
from w2sr_jax.core.trace_config import HYGIENE_FLAGS
from w2sr_jax.data import benchmarks, protocols
from w2sr_jax.data.tasks import load_problems
from w2sr_jax.engine.identity import identify
from w2sr_jax.engine.limits import cut_at_stops, within_context
from w2sr_jax.engine.open import model_name, write_traces
from w2sr_jax.grading import hygiene
from w2sr_jax.grading.grade import GRADER_VERSION
from w2sr_jax.grading.pool import GraderPool
from w2sr_jax.grading.scoring import Score, score_many
from w2sr_jax.grading.second import SECOND_VERSION
from w2sr_jax.grading.statistics import bootstrap_interval, pass_at_k, wilson_interval
from w2sr_jax.model import hf
from w2sr_jax.model.flops import flops_shape

CONFIG = EvaluateConfig


def main(config: EvaluateConfig, workdir: str) -> dict[str, Any]:
    """Writes predictions.jsonl, disagreements.jsonl and result.json.

    Returns:
        the content of result.json.
    """
    validate(config)
    root = Path(workdir)
    directory = hf.resolve(config.model)
    problems = load_problems(config.problems, config.limit)
    benchmark = config.benchmark or benchmarks.display_name(config.problems)
    protocol, sampling = protocols.of(config)
    done = (root / "result.json").exists()
    answers_in = root / ("result.json" if done else "responses.jsonl")
    identity = identify(answers_in, directory, problems, protocol.template)
    if done:
        if processes.is_writer():
            (root / "responses.jsonl").unlink(missing_ok=True)  # a kill may have come before the last line below
        return read_json(root / "result.json")
    asked = sampling
    if config.protocol:
        asked = within_context(sampling, protocol.template, problems, directory, config.response_prefix)
    with cost.StageClock(workdir, "evaluate") as clock:
        answers = write_traces(root / "responses.jsonl", directory, problems, config, asked, protocol.template, clock)

        def finish() -> dict[str, Any]:
            traces, cuts = cut_at_stops(answers.traces, protocol.stops, len(config.response_prefix))
            scores = score(config, problems, traces)
            predictions = predict(benchmark, traces, scores)
            write_jsonl(root / "predictions.jsonl", predictions)
            write_jsonl(root / "disagreements.jsonl", disagreements(problems, traces, scores))
            result = summarise(sampling.n, benchmark, problems, predictions) | other_rules(scores)
            result |= {"model": config.model, "weights": identity["weights"]}
            result["decoding"] = {
                "template": protocol.template,
                "response_prefix": config.response_prefix,
                "max_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "n": sampling.n,
                "stop_token_ids": answers.provenance["stop_token_ids"],
                "dtype": config.decode.dtype,
                "engine": config.engine,
                "problems_sha256": identity["problems_sha256"],
            }
            if config.protocol:
                result["decoding"] |= {"protocol": config.protocol, "stop_strings": list(protocol.stops)}
                result |= {"stop_strings": cuts, "token_limit": asked.max_tokens}
            result["benchmark_file"] = benchmarks.identify(config.problems)
            flops = answers.flops(flops_shape(hf.load_config(directory)))
            line = clock.line(**answers.used, flops=flops, price=config.price)
            cost.append_ledger(workdir, line)
            return result | {"seconds": round(line.seconds, 3), "device_kind": line.device_kind}

        result = made_by_writer(root / "result.json", finish)
    if processes.is_writer():
        (root / "responses.jsonl").unlink(missing_ok=True)  # predictions.jsonl holds them all
    low, high = result["interval"]
    logging.info(
        "%s on %s: Pass@1 %.4f [%.4f, %.4f] of %d, stop rate %.3f",
        *(model_name(config.model), benchmark, result["pass_at_1"], low, high, len(problems), result["stop_rate"]),
    )
    return result


def score(config: EvaluateConfig, problems: list[Problem], traces: list[Trace]) -> list[Score]:
    """Scores every answer by every rule, in the order of `traces`."""
    by_id = {problem.id: problem for problem in problems}
    with GraderPool(config.workers, config.deadline_s) as pool:
        return score_many(
            pool,
            [(t.response, by_id[t.problem_id].answer) for t in traces],
            verifiers=[by_id[t.problem_id].verifier for t in traces],
        )


def predict(benchmark: str, traces: list[Trace], scores: list[Score]) -> list[Prediction]:
    """The graded answers."""
    return [
        Prediction(
            benchmark=benchmark,
            problem_id=trace.problem_id,
            sample=trace.sample,
            response=trace.response,
            response_tokens=trace.response_tokens,
            finish_reason=trace.finish_reason,
            extracted=scored.main.extracted,
            correct=scored.main.correct,
            hygiene=hygiene.flags(trace.response, trace.finish_reason),
        )
        for trace, scored in zip(traces, scores)
    ]


def disagreements(problems: list[Problem], traces: list[Trace], scores: list[Score]) -> list[Disagreement]:
    """Every answer of which the two graders say different things."""
    answers = {problem.id: problem.answer for problem in problems}
    return [
        Disagreement(
            problem_id=trace.problem_id,
            sample=trace.sample,
            extracted=scored.main.extracted or "",
            answer=answers[trace.problem_id],
            main=scored.main.correct,
            second=scored.second,
            error=scored.main.error,
        )
        for trace, scored in zip(traces, scores)
        if scored.main.correct != scored.second
    ]


def other_rules(scores: list[Score]) -> dict[str, Any]:
    """Pass@1 by the second grader and by the box rules. Every problem has as many samples, so plain means serve."""
    only = Counter((s.main.correct, s.second) for s in scores)
    return {
        "second_grader": {
            "grader": SECOND_VERSION,
            "pass_at_1": sum(s.second for s in scores) / len(scores),
            "main_only": only[True, False],
            "second_only": only[False, True],
        },
        "box_rules": {rule: sum(s.by_box[rule] for s in scores) / len(scores) for rule in scores[0].by_box},
    }


def summarise(k: int, benchmark: str, problems: list[Problem], predictions: list[Prediction]) -> dict[str, Any]:
    """Accuracy with its interval (Wilson for one answer a problem, bootstrap over problems for k of them)."""
    right: Counter[str] = Counter(p.problem_id for p in predictions if p.correct)
    per_problem = [right[problem.id] / k for problem in problems]
    pass_at_1 = sum(per_problem) / len(problems)
    if k == 1:
        interval = wilson_interval(sum(right.values()), len(problems))
    else:
        interval = bootstrap_interval(per_problem)
    flagged = Counter(flag for p in predictions for flag in p.hygiene)
    stops = sum(p.finish_reason == "stop" for p in predictions)
    result: dict[str, Any] = {
        "benchmark": benchmark,
        "n": len(problems),
        "k": k,
        "pass_at_1": pass_at_1,
        "interval": list(interval),
        "stop_rate": stops / len(predictions),
        "length_stops": sum(p.finish_reason == "length" for p in predictions),
        "failed": sum(p.finish_reason == "failed" for p in predictions),
        "hygiene": {flag: flagged[flag] for flag in HYGIENE_FLAGS},
        "mean_response_tokens": sum(p.response_tokens for p in predictions) / len(predictions),
        "grader": GRADER_VERSION,
    }
    if k > 1:
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= k]
        result["pass_at_k"] = {
            str(size): sum(pass_at_k(k, right[p.id], size) for p in problems) / len(problems) for size in sizes
        }
    return result


if __name__ == "__main__":
    runtime.main_exit("evaluate", main, CONFIG)
