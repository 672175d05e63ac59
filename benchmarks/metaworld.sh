#!/usr/bin/env bash
# Runs of the Meta-World table: one preset and one budget for all tasks, 10 demonstrations, 3 seeds.
#
#     benchmarks/metaworld.sh FOLDER [TASK ...]
#
# Finished runs are skipped, interrupted ones are resumed. On two cores, two of these side by side, each pinned to a core
# (taskset -c 0 ...), finish sooner than one after the other.
set -euo pipefail
folder=${1:?usage: benchmarks/metaworld.sh FOLDER [TASK ...]}
shift
[ $# -gt 0 ] || set -- button-press window-open door-open reach stick-push bin-picking
cdred=${CDRED:-"$(dirname "$0")/../.venv/bin/cdred"}
for task in "$@"; do
    "$cdred" train "metaworld/$task" --demos 10 --steps 5000 --seeds 0 1 2 --out "$folder/$task"
done
"$cdred" report "$folder"/*/ --table "$folder/table.md"
