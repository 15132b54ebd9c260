#!/bin/sh
# Measure DSPy's Evaluate on the server that benches/models.rs uses: once
# answering at once, once in 50 ms. Needs Python 3 and PyPI; takes a folder for
# the virtual environment (default: target/peers).
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-target/peers}
if [ ! -x "$folder/bin/python" ]; then
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet dspy
fi
cargo build --release --quiet --example chat_server
for latency in 0 50; do
    log=$(mktemp)
    # DSPy's chat adapter reads fields out of marked text, which the server is told to say.
    target/release/examples/chat_server --latency-ms "$latency" \
        --say '[[ ## label ## ]]
none

[[ ## completed ## ]]' >"$log" &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    until grep -q base_url "$log"; do sleep 0.05; done
    url=$(sed 's/.*"\(.*\)".*/\1/' "$log")
    printf 'server answers in %s ms: ' "$latency"
    "$folder/bin/python" benches/peers/dspy_evaluate.py "$url"
    kill $server
    rm -f "$log"
done
