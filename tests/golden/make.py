#!/usr/bin/env python3
"""Makes the golden values anew from the Python libraries they are taken from, or checks the recorded ones against them.

    python3 tests/golden/make.py                 # every area, recorded anew
    python3 tests/golden/make.py --check         # made live in a temporary folder and compared; exit 1 on a difference
    python3 tests/golden/make.py --check t5 eval # these areas alone

With --check the area t5 goes both ways: models trained here (by `cargo test`), and the model of a run exported for the Hub, are
loaded by `transformers`, and random models that `transformers` saves are loaded here.

An area is a script `scripts/AREA.py`, run as `python AREA.py OUT`, that fills the folder OUT; its recorded values are the
folder `AREA` beside this file. Without --python the pinned packages of requirements.txt are installed in a virtual
environment first: torch alone takes several gigabytes. This driver itself needs nothing but Python, and cargo to check t5.
"""

import argparse
import array
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "scripts"

# Differences a change of processor may cause in single precision. Everything that is no float must be equal.
RELATIVE, ABSOLUTE = 1e-4, 1e-5

# Of these files more: one rounding leads k-means to another local optimum, and the medians over seeds differ a little.
LOOSE = {"quantize/errors.json": 5e-3}

# safetensors' element types as struct codes; half precisions are compared byte for byte.
CODES = {"F64": "d", "F32": "f", "I64": "q", "I32": "i", "I16": "h", "I8": "b", "U64": "Q", "U32": "I", "U16": "H",
         "U8": "B", "BOOL": "B"}


def areas():
    return sorted(path.stem for path in SCRIPTS.glob("*.py") if not path.stem.startswith("_"))


def interpreter(args):
    """The Python that has the pinned packages: the given one, or that of a virtual environment made here."""
    if args.python:
        return args.python
    venv = Path(args.venv) if args.venv else Path(args.scratch) / "venv"
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment in {venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--requirement", str(HERE / "requirements.txt")], check=True)
    return str(python)


def run(python, area, out):
    """Fills `out` by the area's script: one thread, no network, no GPU, so that the values do not depend on the machine."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false",
                       OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", PYTHONHASHSEED="0",
                       PYTHONDONTWRITEBYTECODE="1")
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([python, str(SCRIPTS / f"{area}.py"), str(out)], check=True, env=environment)


def close(a, b, relative=RELATIVE):
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=relative, abs_tol=ABSOLUTE)


def json_differences(old, new, where="", relative=RELATIVE):
    """Yields where two JSON values differ by more than the tolerance."""
    number = lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)
    if number(old) and number(new) and (isinstance(old, float) or isinstance(new, float)):
        if not close(old, new, relative):
            yield f"{where}: recorded {old}, made {new}"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key in old and key in new:
                yield from json_differences(old[key], new[key], f"{where}.{key}", relative)
            else:
                yield f"{where}.{key}: {'no longer made' if key in old else 'not recorded'}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from json_differences(a, b, f"{where}[{i}]", relative)
    elif old != new or type(old) is not type(new):
        yield f"{where}: recorded {str(old)[:80]}, made {str(new)[:80]}"


def tensors(path):
    """Name -> (type, shape, bytes) of a safetensors file, and its metadata."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    body = data[8 + size :]
    return metadata, {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


def tensor_differences(old, new):
    """Yields where two safetensors files differ by more than the tolerance."""
    (old_metadata, old), (new_metadata, new) = tensors(old), tensors(new)
    yield from json_differences(old_metadata, new_metadata, "metadata")
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield f"{name}: {'no longer made' if name in old else 'not recorded'}"
            continue
        (dtype, shape, a), (*kind, b) = old[name], new[name]
        if kind != [dtype, shape]:
            yield f"{name}: recorded {dtype} {shape}, made {kind}"
        elif a != b:
            code = CODES.get(dtype)
            if code not in ("d", "f"):
                yield f"{name}: {dtype} values differ"
                continue
            a, b = (array.array(code, raw) for raw in (a, b))
            off = [(x, y) for x, y in zip(a, b) if not close(x, y)]
            if off:
                yield f"{name}: {len(off)} of {len(a)} values differ, first recorded {off[0][0]}, made {off[0][1]}"


def values(folder):
    """The recorded files of a folder, by relative name: everything but the words that describe them."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"}


def differences(old, new):
    """Yields the differences of two folders."""
    for name in sorted(values(old) | values(new)):
        a, b = old / name, new / name
        if not a.exists() or not b.exists():
            yield f"{name}: {'no longer made' if a.exists() else 'not recorded'}"
            continue
        if a.suffix == ".json":
            relative = LOOSE.get(f"{old.name}/{name}", RELATIVE)
            found = json_differences(json.loads(a.read_text()), json.loads(b.read_text()), relative=relative)
        elif a.suffix == ".safetensors":
            found = tensor_differences(a, b)
        else:
            found = ["bytes differ"] if a.read_bytes() != b.read_bytes() else []
        yield from (f"{name}: {difference}" for difference in found)


def loads_in_transformers(python, scratch):
    """Models that this repository trains and writes, and a run that it exports, loaded by `transformers`; the number of failures."""
    failures = 0
    for package, test, variable, name, tolerance in [
        ("genrec-model", "t5", "GENREC_T5_EXPORT", "golden::export", "1e-4"),
        ("genrec-tests", "hub", "GENREC_EXPORT", "the_model_of_an_export_is_one_of_transformers", "1e-5"),
    ]:
        exports = scratch / f"exports-{test}"
        command = ["cargo", "test", "--quiet", "-p", package, "--test", test, name]
        subprocess.run(command, check=True, cwd=HERE, env={**os.environ, variable: str(exports)}, stdout=subprocess.DEVNULL)
        loading = [python, str(SCRIPTS / "_load_t5.py"), str(exports), tolerance]
        failures += subprocess.run(loading, check=False, env=dict(os.environ, HF_HUB_OFFLINE="1")).returncode
    return failures


def loads_from_transformers(python, scratch):
    """Random models that `transformers` saves, loaded by this repository; 1 on a failure."""
    saved = scratch / "saved"
    subprocess.run([python, str(SCRIPTS / "_save_t5.py"), str(saved)], check=True, env=dict(os.environ, HF_HUB_OFFLINE="1"))
    command = ["cargo", "test", "--quiet", "-p", "genrec-model", "--test", "t5", "golden::import"]
    done = subprocess.run(command, check=False, cwd=HERE, env=dict(os.environ, GENREC_T5_IMPORT=str(saved)))
    return int(done.returncode != 0)


def check(python, area, scratch):
    """Makes the area in the scratch folder; the number of its differences from the recorded values."""
    made = scratch / area
    run(python, area, made)
    if not any(made.rglob("*")):
        print(f"{area}: the script made nothing")
        return 1
    found = list(differences(HERE / area, made))
    for difference in found[:20]:
        print(f"{area}/{difference}")
    if len(found) > 20:
        print(f"{area}: and {len(found) - 20} more")
    if area == "t5":
        return len(found) + loads_in_transformers(python, scratch) + loads_from_transformers(python, scratch)
    return len(found)


def record(python, area, scratch):
    """Replaces the area's recorded values, once its script has succeeded."""
    made = scratch / area
    run(python, area, made)
    target = HERE / area
    for name in values(target):
        (target / name).unlink()
    shutil.copytree(made, target, dirs_exist_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of: {' '.join(areas())} (default: all)")
    parser.add_argument("--check", action="store_true", help="compare with the recorded values instead of replacing them")
    parser.add_argument("--python", metavar="PATH", help="an interpreter that has the packages of requirements.txt")
    parser.add_argument("--venv", metavar="DIR", help="keep the virtual environment here (default: a temporary one)")
    args = parser.parse_args()
    unknown = sorted(set(args.areas) - set(areas()))
    if unknown:
        parser.error(f"no script for {', '.join(unknown)}; there are: {', '.join(areas())}")

    failed = []
    with tempfile.TemporaryDirectory(prefix="genrec-golden-") as scratch:
        args.scratch = scratch
        python = interpreter(args)
        for area in args.areas or areas():
            start = time.monotonic()
            if args.check:
                count = check(python, area, Path(scratch))
                outcome = "agrees" if not count else f"{count} differences"
                failed += [area] if count else []
            else:
                record(python, area, Path(scratch))
                outcome = "recorded"
            print(f"{area}: {outcome} ({time.monotonic() - start:.1f} s)", flush=True)
    if failed:
        sys.exit(f"golden values differ: {', '.join(failed)}")


if __name__ == "__main__":
    main()
