"""Builds llama.cpp from the source package `llama-cpp-python` on PyPI, and the driver next to it."""
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
CMAKE_OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON", "-DGGML_LLAMAFILE=ON",
                 "-DGGML_CPU_REPACK=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_MTMD=ON",
                 "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                 "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF"]


def _run(*command, **kw):
    print("+", " ".join(map(str, command)), file=sys.stderr)
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr, **kw)


def _source(cache, version):
    """Download and unpack the package; return the directory of its llama.cpp."""
    pattern = f"llama_cpp_python-{version or '*'}/vendor/llama.cpp/CMakeLists.txt"
    by_version = lambda p: [int(n) for n in re.findall(r"\d+", p.parents[2].name)]    # 0.3.9 before 0.3.36
    found = sorted(cache.glob(pattern), key=by_version)
    if not found:
        name = "llama-cpp-python" + (f"=={version}" if version else "")
        _run(sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps", "-d", cache, name)
        for package in cache.glob("llama_cpp_python-*.tar.gz"):
            with tarfile.open(package) as tar:
                tar.extractall(cache, filter="data")
        found = sorted(cache.glob(pattern), key=by_version)
        if not found:
            raise SystemExit(f"llama-cpp-python {version or ''}: the downloaded package has no vendor/llama.cpp")
    return found[-1].parent


def describe(tree):
    """'llama-cpp-python 0.3.36 (llama.cpp 0c1e57098)', the second part from the package's change log."""
    package = tree.parents[1]
    log = (package / "CHANGELOG.md").read_text()
    commit = re.search(r"ggml-org/llama\.cpp@([0-9a-f]+)", log)
    return f"{package.name.replace('llama_cpp_python-', 'llama-cpp-python ')} (llama.cpp {commit[1] if commit else 'unknown'})"


def build(cache, jobs, version=None):
    """Return (driver path, description), building only what is missing or out of date."""
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    tree = _source(cache, version)
    release = tree.parents[1].name.removeprefix("llama_cpp_python-")
    out = cache / f"build-{release}"
    if not list(out.rglob("libmtmd.a")):
        _run("cmake", "-S", tree, "-B", out, *CMAKE_OPTIONS)
        _run("cmake", "--build", out, "-j", jobs, "--target", "llama", "mtmd")
    source = HERE / "llama_cpp_driver.cpp"
    driver = cache / f"llama_cpp_driver-{release}-{hashlib.sha1(source.read_bytes()).hexdigest()[:10]}"
    if not driver.exists():
        libs = [next(out.rglob(f"lib{n}.a")) for n in ("mtmd", "llama", "ggml", "ggml-cpu", "ggml-base")]
        _run(os.environ.get("CXX", "c++"), "-O2", "-std=c++17", source, "-o", driver, "-I", tree / "include",
             "-I", tree / "ggml/include", "-I", tree / "tools/mtmd", *libs, "-fopenmp", "-lpthread", "-ldl", "-lm")
    return driver, describe(tree)
