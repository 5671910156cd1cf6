#!/bin/sh
# Measure tonight's cells, hold them against the baseline, and leave reports beside them.
#
#   nightly.sh [SWEEP.toml [BASELINE [FLAGS OF HARNESS SWEEP...]]]
#
# By default nightly.toml beside this script, and the baseline "release".
#
# Exit code: that of the gate (0 fine, 1 worse, 3 a cell was not measured, 4 nothing compared), or
# that of a sweep that could not begin or was interrupted (2, 3, 130). On the first night there is no baseline: look at the results, then
#   harness baseline promote NIGHT --name release --reason "first night"
set -eu
cd "$(dirname "$0")"
sweep=${1:-nightly.toml}
baseline=${2:-release}
results=${RESULTS:-results}
[ $# -lt 2 ] && set -- || shift 2

# 3: some cells failed; the gate says which, and judges the others
code=0
night=$(harness sweep "$sweep" --results "$results" "$@") || code=$?
if [ $code -ne 0 ] && { [ $code -ne 3 ] || [ -z "$night" ]; }; then
    exit $code
fi
if ! harness baseline show "$baseline" --results "$results" >/dev/null; then
    echo "tonight is the first: harness baseline promote $night --name $baseline" >&2
    exit 4
fi
mkdir -p "$night/gate"
harness check "$night" --baseline "$baseline" --results "$results" --report-dir "$night/gate"
