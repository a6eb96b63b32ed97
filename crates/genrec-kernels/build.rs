//! Compiles the CUDA kernels to PTX where a feature asks for them; `nvcc` is needed by candle's own kernels too.

use std::{env, error::Error, path::PathBuf, process::Command};

/// Oldest generation of GPUs that CUDA 13 knows: Turing. Drivers compile PTX for later ones.
const ARCHITECTURE: &str = "compute_75";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/cuda");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rustc-check-cfg=cfg(cuda_kernels)");
    // Each of them turns candle's own kernels on.
    if !["CUDA", "CUDNN", "NCCL"].iter().any(|feature| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()) {
        return Ok(());
    }
    println!("cargo::rustc-cfg=cuda_kernels");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for source in ["packed", "optim", "decode"] {
        compile(source, &[], out.join(format!("{source}.ptx")))?;
    }
    for (type_, suffix) in [("float", "f32"), ("bf16", "bf16")] {
        for width in [16, 32, 64] {
            let defines = [format!("-DTYPE={type_}"), format!("-DSUFFIX={suffix}"), format!("-DWIDTH={width}")];
            compile("attention", &defines, out.join(format!("attention_{suffix}_{width}.ptx")))?;
        }
    }
    Ok(())
}

fn compile(source: &str, defines: &[String], to: PathBuf) -> Result<(), Box<dyn Error>> {
    let home = || env::var_os("CUDA_HOME").or_else(|| env::var_os("CUDA_PATH"));
    let nvcc = env::var_os("NVCC")
        .map(PathBuf::from)
        .or_else(|| home().map(|home| PathBuf::from(home).join("bin/nvcc")))
        .unwrap_or_else(|| PathBuf::from("nvcc"));
    let run = Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE])
        .args(defines)
        .arg("-o")
        .arg(to)
        .arg(format!("src/cuda/{source}.cu"))
        .output()
        .map_err(|error| format!("{} does not run: {error}; set CUDA_HOME or NVCC", nvcc.display()))?;
    if !run.status.success() {
        return Err(format!("{} failed:\n{}", nvcc.display(), String::from_utf8_lossy(&run.stderr)).into());
    }
    Ok(())
}
