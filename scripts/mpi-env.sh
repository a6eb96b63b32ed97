#!/usr/bin/env bash
# MPI and libclang, which the `mpi` feature needs to build: those of the system, or Python wheels where there are none. docs/scale.md.
#
#   source scripts/mpi-env.sh [DIR]      DIR holds the wheels (default: ~/.cache/genrec/mpich)
#   cargo build --release --features mpi --example train_parallel

_genrec_mpi() {
  local dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/genrec/mpich} library
  if ! command -v mpicc > /dev/null; then
    if [ ! -x "$dir/bin/mpicc" ]; then
      python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --no-deps --ignore-installed --prefix "$dir" mpich==5.0.2 libclang==18.1.1 || return 1
    fi
    library=$(find "$dir" -name libclang.so | head -1)
    export PATH=$dir/bin:$PATH LD_LIBRARY_PATH=$dir/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} LIBCLANG_PATH=${library%/*}
  fi
  MPICC=$(command -v mpicc) || return 1
  export MPICC
}
_genrec_mpi "$@" || echo "mpi-env: MPI could not be prepared" >&2
unset -f _genrec_mpi
