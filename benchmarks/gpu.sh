#!/usr/bin/env bash
# Measurements on a GPU, one part at a time; needs Python and JAX only.
#
#     benchmarks/gpu.sh agreement|speed|tasks OUT [PRESET]
#
# agreement: numerical tests on the GPU; one update on GPU and CPU; effect of TF32 and bfloat16.
# speed:     updates of 1 to 16 seeds, plans of 1 to 64 environments, whole loops, precisions.
# tasks:     whole tasks with the simulator on the GPU: an expert by TD-MPC2, then five seeds of CDRED from it.
#
# Wheels in .whl/, if any, are installed. PRESET defaults to `paper`; `debug` tries everything in minutes.
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
    # A failure of the tests must not stop the rest.
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
        cdred train-expert "$task" --preset "$preset" --steps "${STEPS:-100000}" --num 100 --out "$out/$name.npz"
        cdred train "$task" --preset "$preset" --steps "${STEPS:-100000}" --demos "$out/$name.npz" \
            --seeds 0 1 2 3 4 --out "$out/$name" --no-video
    done
}

case $part in
agreement | speed | tasks) "$part" ;;
*) echo "gpu.sh: unknown part '$part'; choose agreement, speed or tasks" >&2 && exit 2 ;;
esac
