#!/usr/bin/env bash
# Prepares a CUDA 13 toolkit from Python wheels, enough to compile and link the features `cuda` and `nccl` where there is
# no GPU and no NVIDIA installer. docs/gpu.md explains it.
#
#   source scripts/cuda-env.sh [DIR]      DIR holds the toolkit (default: ~/.cache/genrec-cuda)
#   cargo build --release --features cuda
#
# CUDA_COMPUTE_CAP names the GPU generation to compile for (default 90, Hopper; 80 is Ampere, 89 Ada).
# Needs python3 with venv, and gcc. What is built runs where a driver of version 580 or later is installed.

_genrec_cuda() {
  local dir=${1:-$HOME/.cache/genrec-cuda} home lib stub header=include/cuda.h

  [ -x "$dir/bin/python" ] || python3 -m venv "$dir" || return 1
  # The compiler (driver, front end, NVVM back end), its headers, and the libraries candle links.
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' \
    'nvidia-cublas==13.0.*' 'nvidia-curand==10.4.*' 'nvidia-nccl-cu13==2.30.*' || return 1
  home=$("$dir/bin/python" -c 'import nvidia.cu13 as m; print(list(m.__path__)[0])') || return 1

  # NCCL has a folder of its own.
  [ -e "$home/../nccl/lib/libnccl.so.2" ] || return 1
  ln -sfn ../../nccl/lib/libnccl.so.2 "$home/lib/libnccl.so.2"

  # Wheels carry libfoo.so.13 alone; the linker looks for libfoo.so.
  for lib in "$home"/lib/lib*.so.*; do
    ln -sfn "${lib##*/}" "${lib%%.so.*}.so"
  done

  # The driver's own library comes with the driver, so it is absent here. Link against a stand-in that defines every
  # name in its header and answers CUDA_ERROR_STUB_LIBRARY; the soname makes the program load the real one.
  stub=$home/lib/stubs/libcuda.so
  mkdir -p "$home/lib/stubs"
  grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$home/$header" | sort -u \
    | sed 's/.*/int &(void) { return 34; }/' \
    | gcc -w -x c -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$stub.$$" - || return 1
  mv -f "$stub.$$" "$stub"

  export CUDA_HOME=$home CUDA_PATH=$home CUDA_ROOT=$home CUDA_TOOLKIT_ROOT_DIR=$home
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
  export PATH=$home/bin:$PATH
  export LIBRARY_PATH=$home/lib:$home/lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
}
_genrec_cuda "$@" || echo "cuda-env: the toolkit could not be prepared" >&2
unset -f _genrec_cuda
command -v nvcc > /dev/null && nvcc --version | tail -n 2
