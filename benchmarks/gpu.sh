#!/usr/bin/env bash
# What to measure where there is a GPU, one part at a time, from a machine that has Python, JAX and nothing of ours.
#
#     benchmarks/gpu.sh agreement|speed|tasks OUT [PRESET]
#
# agreement: the numerical tests on the GPU; one update there and on the CPU; what TF32 and bfloat16 change.
# speed:     updates of 1 to 16 seeds, plans of 1 to 64 environments, whole loops, precisions.
# tasks:     whole tasks with the simulator on the GPU: an expert by TD-MPC2, then five seeds of CDRED from it.
#
# Wheels in .whl/, if any, are installed for it. PRESET is `paper` unless given; `debug` tries everything in minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
part=$1 out=$2 preset=${3:-paper}
python=${PYTHON:-python3}
mkdir -p "$out"
if compgen -G '.whl/*.whl' >/dev/null; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "${SITE:=/tmp/site}" --upgrade .whl/*.whl
fi
export PYTHONPATH="src:${SITE:-}" PYTHONUNBUFFERED=1
cdred() { "$python" -m cdred "$@"; }
platform=$("$python" -c 'import jax; print(jax.default_backend())')
echo "$platform, preset $preset"

agreement() {
    # A part that fails must not cost the others their turn.
    "$python" -m pytest -q -p no:cacheprovider tests/nn tests/models tests/planning tests/algos \
        >"$out/tests.txt" 2>&1 || echo "tests failed: $out/tests.txt"
    tail -n 3 "$out/tests.txt"
    devices=cpu
    [ "$platform" = cpu ] || devices="cpu cuda"
    # shellcheck disable=SC2086
    "$python" benchmarks/agreement.py --devices $devices --preset "$preset" --json "$out/agreement.json"
}

speed() {
    for seeds in 1 2 4 8 16; do
        cdred bench update --preset "$preset" --seeds "$seeds" --json "$out/update-$seeds.json" || true
    done
    for envs in 1 16 64; do
        cdred bench plan --preset "$preset" --envs "$envs" --json "$out/plan-$envs.json" || true
    done
    for precision in tf32 bfloat16; do
        for what in update plan; do
            cdred bench "$what" --preset "$preset" --precision.model "$precision" --precision.reward "$precision" \
                --json "$out/$what-$precision.json" || true
        done
    done
    cdred bench loop --preset "$preset" --task "${LOOP_TASK:-mjx/CheetahRun}" --json "$out/loop.json" || true
}

tasks() {
    for task in ${TASKS:-mjx/CheetahRun mjx/WalkerRun}; do
        name=${task#mjx/}
        cdred expert "$task" --preset "$preset" --decisions "${DECISIONS:-100000}" --num 100 --out "$out/$name.npz"
        cdred train "$task" --preset "$preset" --decisions "${DECISIONS:-100000}" --demos "$out/$name.npz" \
            --seeds 0 1 2 3 4 --out "$out/$name" --video False
    done
}

case $part in
agreement | speed | tasks) "$part" ;;
*) echo "gpu.sh: no part '$part': there are agreement, speed, tasks" >&2 && exit 2 ;;
esac
