#!/usr/bin/env bash
# Show that a bundle answers on ARM as it answers here, without an ARM machine: under QEMU's user emulation.
#
#   tools/check_arm64.sh BUNDLE SQUAD.json [--questions 200] [--precision int8|fp16|fp32] [--cpu cortex-a72]
#       [--tolerance 1] [--armv7] [--work FOLDER]
#
# Runs the bundle's conformance cases and so many real questions on the aarch64 wheels of numpy and the engines, with
# every graph of the bundle or those of one precision, and compares the answers with those of this machine. Exits with 0
# only if all cases pass and no F1 differs by more than the tolerance. Times mean nothing under emulation: none are
# taken. tflite-runtime, which boards with old systems have, runs the fp32 or fp16 graph if the bundle has one; with
# --armv7 it does so on a 32-bit ARM too, for which there is no other engine.
#
# Needs Linux, apt-get with a Debian mirror among its sources, and a Python (PYTHON, else .venv's, else python3) with
# pip, numpy and the bundle's engines. Nothing is installed: all that is fetched (some 150 MB) and all answers are kept
# in FOLDER (runs/arm64), so that a second run, or one after an interruption, goes on where the last one ended.
# DEBIAN_MIRROR names the mirror on a system whose apt has none of Debian's, as Ubuntu.
set -euo pipefail

QEMU_SUITE=trixie       # QEMU 10; the QEMU 7.2 of the suite before crashes in both engines
LIBRARY_SUITE=bookworm  # Python 3.11 and glibc 2.36, those of Raspberry Pi OS 12
LIBRARIES=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libstdc++6 libgcc-s1 zlib1g libexpat1
    libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1)
ARMV7_NUMPY=(python3-numpy libblas3 liblapack3 libgfortran5) # there is no wheel
ARMV7_CPU=cortex-a7                                          # Raspberry Pi 2, the weakest that runs the wheel
# For boards that have only this; its wheels were built for numpy 1, and it runs no int8.
TFLITE_RUNTIME=(tflite-runtime==2.14.0 numpy==1.26.4)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
questions=200 cpu=cortex-a72 tolerance=1 armv7='' precision='' work=$root/runs/arm64

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; }
wrong_usage() {
    echo "error: $1; tools/check_arm64.sh --help says how it is used" >&2
    exit 2
}
die() { echo "error: $1" >&2; exit 1; }
say() { echo "$1" >&2; }

places=()
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --armv7) armv7=yes; shift ;;
        --questions | --cpu | --tolerance | --precision | --work)
            (($# > 1)) || wrong_usage "$1 has no value"
            declare "${1#--}=$2"
            shift 2
            ;;
        -*) wrong_usage "$1 is not an option" ;;
        *) places+=("$1"); shift ;;
    esac
done
((${#places[@]} == 2)) || wrong_usage "expected a bundle and a SQuAD file, found ${#places[@]} names"
[[ $questions =~ ^[1-9][0-9]{0,5}$ ]] || wrong_usage "--questions is '$questions', expected a whole number from 1"
[[ $tolerance =~ ^[0-9]+(\.[0-9]+)?$ ]] || wrong_usage "--tolerance is '$tolerance', expected points of F1, such as 1"
[[ $cpu =~ ^[a-z0-9-]+$ ]] || wrong_usage "--cpu is '$cpu', expected a name that QEMU knows, such as cortex-a72 or max"
[[ $precision =~ ^(|int8|fp16|fp32)$ ]] || wrong_usage "--precision is '$precision', expected int8, fp16 or fp32"
[[ -n $work ]] || wrong_usage "--work is empty, expected a folder"
bundle=${places[0]} squad=${places[1]}

[[ $(uname -s) == Linux ]] || die "this is $(uname -s): QEMU's user emulation needs Linux"
[[ -e $bundle ]] || die "bundle $bundle is not there"
[[ -f $squad ]] || die "SQuAD file $squad is not there; python tools/get_squad.py fetches it"
for tool in apt-get dpkg tar sha256sum flock; do
    command -v "$tool" >/dev/null || die "$tool is not installed: this check fetches Debian packages and needs it"
done
python=${PYTHON:-$root/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python3
python=$(command -v "$python") || die "$python is not installed: name a Python with PYTHON=..."
bundle=$(realpath "$bundle") squad=$(realpath "$squad")
mkdir -p "$work" || die "folder $work cannot be made"
work=$(realpath "$work")
exec 9>"$work/lock"
flock -n 9 || die "another check runs in $work: wait for it, or name another folder with --work"

# What is run is a copy, so that a change of the sources while this runs does not change what is compared.
rm -rf "$work/runtime"
mkdir "$work/runtime"
cp -r "$root/runtime/qa_edge_runtime" "$work/runtime/"
cp "$root/tools/ask_squad.py" "$root/tools/compare_answers.py" "$work/runtime/"
find "$work/runtime" -name __pycache__ -prune -exec rm -rf {} +
here() { env PYTHONPATH="$work/runtime" PYTHONUTF8=1 OMP_NUM_THREADS=1 "$python" "$@"; }

# Engines and precisions of the bundle, and the packages that run them here.
rows=$(here -c '
import sys
from qa_edge_runtime import Bundle, QaEdgeError
try:
    graphs = Bundle.open(sys.argv[1]).manifest.graphs
except QaEdgeError as error:
    sys.exit(f"error: {error}")
wanted = [graph for graph in graphs if graph.role == "core" and sys.argv[2] in ("", graph.precision)]
print(*(f"{graph.engine}-{graph.precision}" for graph in wanted))
' "$bundle" "$precision") || die "$bundle cannot be opened with $python, see above"
read -ra rows <<<"$rows"
((${#rows[@]})) || die "$bundle has no graph in $precision"
packages=(numpy)
[[ " ${rows[*]}" != *" onnx-"* ]] || packages+=(onnxruntime)
[[ " ${rows[*]}" != *" tflite-"* ]] || packages+=(ai-edge-litert)
wanted=()
for package in "${packages[@]}"; do
    version=$(here -c 'import sys; from importlib.metadata import version; print(version(sys.argv[1]))' "$package" \
        2>/dev/null) || die "$package is not installed in $python: install it, or name another Python with PYTHON=..."
    wanted+=("$package==$version")
done

# apt-get of a suite and an architecture, with sources, lists and cache of its own.
apt() {
    local suite=$1 architecture=$2 state=$work/apt/$1-$2
    shift 2
    apt-get -qq -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" -o APT::Sandbox::User= \
        -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$state" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$state/cache" -o Acquire::Languages=none \
        -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= "$@"
}

# Packages of a suite and an architecture as files in a folder.
fetch_packages() {
    local suite=$1 architecture=$2 folder=$3 state=$work/apt/$1-$2 mirror
    shift 3
    # shellcheck disable=SC2016  # the format is apt's own
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | sort -u | sed -n '\,/debian/*$,{p;q}')}
    [[ -n $mirror ]] || die "apt has no mirror of Debian among its sources: name one with DEBIAN_MIRROR=..."
    [[ -f $KEYRING ]] || die "$KEYRING is missing: install debian-archive-keyring"
    mkdir -p "$folder" "$state/lists/partial" "$state/cache/archives/partial"
    echo "deb [arch=$architecture signed-by=$KEYRING] $mirror $suite main" >"$state/sources.list"
    apt "$suite" "$architecture" update ||
        die "the package lists of Debian $suite ($architecture) cannot be fetched, see above"
    (cd "$folder" && apt "$suite" "$architecture" download "$@") ||
        die "packages of Debian $suite ($architecture) cannot be fetched, see above: $*"
}

if [[ ! -d $work/qemu ]]; then
    say "fetching QEMU from Debian $QEMU_SUITE"
    rm -rf "$work/qemu.tmp"
    fetch_packages "$QEMU_SUITE" "$(dpkg --print-architecture)" "$work/qemu.tmp" qemu-user
    dpkg --fsys-tarfile "$work"/qemu.tmp/qemu-user_*.deb |
        tar -xf - -C "$work/qemu.tmp" --strip-components 3 ./usr/bin/qemu-aarch64 ./usr/bin/qemu-arm
    rm "$work"/qemu.tmp/*.deb
    mv "$work/qemu.tmp" "$work/qemu"
fi

# Packages of an architecture, unpacked side by side into a folder as they would be into a root file system.
fetch_libraries() {
    local architecture=$1 folder=$work/root-$1 package
    shift
    if [[ ! -d $folder ]]; then
        say "fetching Python 3.11 and its libraries for $architecture from Debian $LIBRARY_SUITE"
        rm -rf "$folder.tmp"
        fetch_packages "$LIBRARY_SUITE" "$architecture" "$folder.tmp/packages" "$@"
        for package in "$folder.tmp/packages"/*.deb; do dpkg -x "$package" "$folder.tmp"; done
        rm -r "$folder.tmp/packages"
        for package in blas lapack; do # an installation would make these links
            [[ ! -d $folder.tmp/usr/lib/arm-linux-gnueabihf/$package ]] ||
                ln -s "$package/lib$package.so.3" "$folder.tmp/usr/lib/arm-linux-gnueabihf/"
        done
        mv "$folder.tmp" "$folder"
    fi
}
fetch_libraries arm64 "${LIBRARIES[@]}"

# A folder with the wheels of the packages named, unzipped; its wheels.txt has their sizes and names.
fetch_wheels() {
    local machine=$1 folder=$2 glibc package wheel platforms=()
    shift 2
    if [[ ! -d $folder ]]; then
        say "fetching the $machine wheels of $*"
        rm -rf "$folder.tmp"
        for glibc in 17 24 26 27 28 31 34 35 36; do platforms+=(--platform "manylinux_2_${glibc}_$machine"); done
        for package; do
            "$python" -m pip --disable-pip-version-check download -qq --no-deps --only-binary=:all: \
                --implementation cp --python-version 3.11 "${platforms[@]}" --platform "manylinux2014_$machine" \
                --dest "$folder.tmp/wheels" "$package" >&2 ||
                die "no $machine wheel for Python 3.11 of $package, see above: take a version here that has one"
        done
        for wheel in "$folder.tmp/wheels"/*.whl; do "$python" -m zipfile -e "$wheel" "$folder.tmp"; done
        (cd "$folder.tmp/wheels" && wc -c -- *.whl | sed '/ total$/d; s/^ *//' >"$folder.tmp/wheels.txt")
        rm -r "$folder.tmp/wheels"
        mv "$folder.tmp" "$folder"
    fi
}
site=$work/wheels-$(IFS=_; echo "${wanted[*]//==/-}")
fetch_wheels aarch64 "$site" "${wanted[@]}"
# tflite-runtime has no int8: the smaller of what is left of the bundle, beside LiteRT here on the same graph.
precision=''
for row in tflite-fp32 tflite-fp16; do [[ " ${rows[*]} " != *" $row "* ]] || precision=${row#tflite-}; done
old_site='' armv7_site=''
if [[ -n $precision ]]; then
    old_site=$work/wheels-$(IFS=_; echo "${TFLITE_RUNTIME[*]//==/-}")
    fetch_wheels aarch64 "$old_site" "${TFLITE_RUNTIME[@]}"
    rows+=("tflite_runtime-$precision")
fi
if [[ -n $armv7 ]]; then
    [[ -n $precision ]] || die "--armv7 needs a TFLite graph in fp32 or fp16, there is none: export with --fp32"
    fetch_libraries armhf "${LIBRARIES[@]}" "${ARMV7_NUMPY[@]}"
    armv7_site=$work/wheels-armv7-${TFLITE_RUNTIME[0]/==/-}
    fetch_wheels armv7l "$armv7_site" "${TFLITE_RUNTIME[0]}"
    rows+=("armv7_tflite_runtime-$precision")
fi
rm -rf "$work/apt"

emulated() { # emulator, CPU, architecture and a folder of wheels, then what its Python runs
    local emulator=$1 model=$2 system=$work/root-$3 wheels=$4
    shift 4
    env -i PYTHONPATH="$work/runtime:$wheels" PYTHONUTF8=1 OMP_NUM_THREADS=1 HOME="$work" \
        "$work/qemu/$emulator" -cpu "$model" -L "$system" "$system/usr/bin/python3.11" -s "$@"
}
there() { emulated qemu-aarch64 "$cpu" arm64 "$site" "$@"; }
# shellcheck disable=SC2329  # called by the name of its row, and the next one too
there_tflite_runtime() { emulated qemu-aarch64 "$cpu" arm64 "$old_site" "$@"; }
# shellcheck disable=SC2329
there_armv7_tflite_runtime() { emulated qemu-arm "$ARMV7_CPU" armhf "$armv7_site" "$@"; }
there -c 'import numpy' >/dev/null 2>"$work/log" ||
    die "Python 3.11 with numpy does not start under qemu-aarch64 -cpu $cpu: $(tail -n 1 "$work/log")"

# One folder of answers for all that could change them.
record=$bundle
[[ ! -d $bundle ]] || record=$bundle/manifest.json
key=$( (cd "$work/runtime" && find . -name '*.py' -print0 | sort -z | xargs -0 sha256sum
    sha256sum <"$record" && sha256sum <"$squad" && "$work/qemu/qemu-aarch64" --version && cat "$site/wheels.txt"
    echo "${wanted[@]}" "${TFLITE_RUNTIME[@]}" && here -V) | sha256sum | cut -c1-12)
results=$work/results-$cpu-$key
mkdir -p "$results"

for side in here there; do
    for row in "${rows[@]}"; do
        run=$side engine=${row%-*} precision=${row#*-}
        if [[ $engine == *tflite_runtime ]]; then
            [[ $side == there ]] || continue
            run=there_$engine engine=tflite
        fi
        name=$results/$side-$row
        if [[ $(cat "$name.verify.code" 2>/dev/null) != 0 ]]; then
            say "$side, $row: conformance cases"
            code=0
            "$run" -m qa_edge_runtime verify "$bundle" --engine "$engine" --precision "$precision" \
                >"$name.verify" 2>"$name.verify.log" || code=$?
            ((code < 2)) ||
                die "the conformance cases of $row ended $side with code $code: $(tail -n 1 "$name.verify.log")"
            echo "$code" >"$name.verify.code"
        fi
        say "$side, $row: $questions questions"
        "$run" "$work/runtime/ask_squad.py" "$bundle" "$squad" --questions "$questions" \
            --engine "$engine" --precision "$precision" -o "$name.jsonl" 2>"$name.log" ||
            die "the questions of $row ended $side with code $?: $(tail -n 1 "$name.log")"
    done
done

echo "bundle $(basename "$bundle"), $questions questions of $(basename "$squad")"
echo "there: $("$work/qemu/qemu-aarch64" --version | head -n 1), -cpu $cpu${armv7:+ (aarch64) and $ARMV7_CPU (armv7l)}"
code=0
here "$work/runtime/compare_answers.py" "$squad" "$results" --rows "${rows[@]}" --questions "$questions" \
    --tolerance "$tolerance" || code=$?
echo "Conformance cases:"
for row in "${rows[@]}"; do
    for side in here there; do
        name=$results/$side-$row
        [[ -f $name.verify ]] || continue
        echo "  $side, $(cat "$name.verify")"
        [[ $(cat "$name.verify.code") == 0 ]] || echo "    $(tail -n 1 "$name.verify.log")"
    done
done
exit "$code"
