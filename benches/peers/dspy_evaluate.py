"""DSPy's Evaluate against a chat server that is already running.

    dspy_evaluate.py BASE_URL [--rows 2000] [--threads 64]

One prediction per row, no cache, a metric that always says yes: what is
measured is the evaluator and its HTTP client, as in benches/models.rs.
"""

import argparse
import logging
import time

import dspy

arguments = argparse.ArgumentParser()
arguments.add_argument("base_url")
arguments.add_argument("--rows", type=int, default=2000)
arguments.add_argument("--threads", type=int, default=64)
options = arguments.parse_args()

logging.disable(logging.WARNING)
dspy.configure(
    lm=dspy.LM(
        "openai/bench",
        api_base=options.base_url,
        api_key="none",
        cache=False,
        max_tokens=64,
        temperature=0.0,
        num_retries=0,
    ),
    track_usage=False,
)


class Choose(dspy.Signature):
    """Choose the tool that fits the user's message."""

    message: str = dspy.InputField()
    label: str = dspy.OutputField()


program = dspy.Predict(Choose)


def rows(count):
    return [
        dspy.Example(message=f"play the new album number {n}, please", label="none").with_inputs("message")
        for n in range(count)
    ]


def evaluate(count):
    evaluator = dspy.Evaluate(
        devset=rows(count),
        metric=lambda *_: 1.0,
        num_threads=options.threads,
        display_progress=False,
        max_errors=count,
    )
    began = time.perf_counter()
    result = evaluator(program)
    return time.perf_counter() - began, result


evaluate(min(128, options.rows))  # connections and imports
took, result = evaluate(options.rows)
print(
    f"DSPy {dspy.__version__} Evaluate, {options.threads} threads: "
    f"{options.rows / took:.0f} predictions/s, score {float(result):.1f}"
)
