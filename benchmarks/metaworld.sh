#!/usr/bin/env bash
# The Meta-World table: one preset and one budget for all tasks, 10 demonstrations, 3 seeds in lockstep.
#
#     benchmarks/metaworld.sh FOLDER [TASK ...]
#
# Finished runs are not run again and interrupted ones go on. On a machine with few cores two of these at a time, each
# pinned to a core (taskset -c 0 ...), finish sooner than one after the other on both.
set -euo pipefail
folder=${1:?usage: benchmarks/metaworld.sh FOLDER [TASK ...]}
shift
[ $# -gt 0 ] || set -- button-press window-open door-open reach stick-push bin-picking
cdred=${CDRED:-"$(dirname "$0")/../.venv/bin/cdred"}
for task in "$@"; do
    "$cdred" train "metaworld/$task" --demos 10 --decisions 5000 --seeds 0 1 2 --out "$folder/$task"
done
"$cdred" report "$folder"/*/ --table "$folder/table.md"
