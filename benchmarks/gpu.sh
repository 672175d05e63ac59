#!/usr/bin/env bash
# Measurements on a GPU, one stage at a time, without a network.
#
#     benchmarks/gpu.sh a|b|c|d OUT [--rehearse] [OPTION ...]
#
# a: CPU and GPU agree; times of updates and plans, beside the authors' code if AUTHORS names a checkout of it. 8 minutes.
# b: a whole task with the simulator on the GPU: an expert by TD-MPC2, then five seeds of CDRED from it. 9 minutes.
# c: whole tasks with simulators on the host's cores: five seeds of CDRED and BC on two Meta-World tasks. 9 minutes.
# d: whole tasks from camera images: experts by TD-MPC2, then CDRED, on walker-run and cheetah-run. 9 minutes.
#
# OUT/<stage>.json has every measurement as soon as it is made. Packages that the machine lacks are taken from the
# archives in .gpu, made by `make gpu-wheels`: .gpu/common.tar.xz for all stages, .gpu/mjx.tar.xz for b,
# .gpu/metaworld.tar.xz for c, .gpu/dmc.tar.xz for d. --rehearse tries every line with small networks; OPTIONs are
# those of benchmarks/gpu_speed.py (a) or benchmarks/gpu_tasks.py (b, c, d). LIMIT_S replaces the limit, PYTHON the
# interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { echo "usage: benchmarks/gpu.sh a|b|c|d OUT [--rehearse] [OPTION ...]" >&2 && exit 2; }
[ $# -ge 2 ] || usage
stage=$1 out=$2
shift 2
case $stage in
a) limit=${LIMIT_S:-480} archives=common ;;
b) limit=${LIMIT_S:-540} archives="common mjx" ;;
c) limit=${LIMIT_S:-540} archives="common metaworld" ;;
d) limit=${LIMIT_S:-540} archives="common dmc" ;;
*) usage ;;
esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/site" "$out"
for archive in $archives; do
    [ -f ".gpu/$archive.tar.xz" ] || { echo "gpu.sh: .gpu/$archive.tar.xz is missing: run make gpu-wheels" >&2 && exit 2; }
    tar -C "$scratch/site" -xJf ".gpu/$archive.tar.xz"
done
export PYTHONPATH="src:$scratch/site" PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
# An empty cache, so that compile times are those of a first run, and later programs of a stage find earlier ones.
export JAX_COMPILATION_CACHE_DIR="$scratch/xla" XDG_CACHE_HOME="$scratch/cache"
# The authors' code takes its memory from the same GPU.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
# What a rehearsal does on a CPU is compile; it need not compile well.
case " $* " in *" --rehearse "*) export JAX_DISABLE_MOST_OPTIMIZATIONS=1 ;; esac
program=(benchmarks/gpu_tasks.py "$stage")
[ "$stage" != a ] || program=(benchmarks/gpu_speed.py ${AUTHORS:+--authors "$AUTHORS"})
# Less what has passed, and ten seconds for the interpreter's start and end.
"${PYTHON:-python3}" "${program[@]}" --out "$out" --limit-s $((limit - SECONDS - 10)) "$@" 2>&1 | tee "$out/$stage.log"
