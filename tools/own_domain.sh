#!/bin/sh
# All commands of docs/own-domain.md, from the kept checkpoint to the scores: what is there already is kept.
#
#   tools/own_domain.sh DATA WORK
#
# DATA holds squad/train-v1.1.json, squad/dev-v1.1.json, vectors/glove.6B.100d.txt (or what GLOVE names) and
# teacher/minilm-squad (or what TEACHER names); ENCODER is where the other half of the word vectors comes from, unless
# VECTORS names a file that `qa-edge vectors` made before, as the model card says; CHECKPOINT (models/edge) is the
# student to go on from. PASSES, RATE, BATCH and SEED are the recipe's. On a shared machine: nice tools/own_domain.sh ...
set -eu
if [ $# -ne 2 ]; then
    echo "usage: tools/own_domain.sh DATA WORK" >&2
    exit 2
fi
# What lies here is named as it is from WORK.
absolute() {
    case $1 in /*) echo "$1" ;; *) if [ -e "$1" ]; then echo "$PWD/$1"; else echo "$1"; fi ;; esac
}
data=$(cd "$1" && pwd) work=$2
here=$(cd "$(dirname "$0")" && pwd)
train=$data/squad/train-v1.1.json
dev=$data/squad/dev-v1.1.json
vectors=vectors.txt.gz
[ -z "${VECTORS:-}" ] || vectors=$(absolute "$VECTORS")
teacher=$(absolute "${TEACHER:-$data/teacher/minilm-squad}")
glove=$(absolute "${GLOVE:-$data/vectors/glove.6B.100d.txt}")
checkpoint=$(cd "${CHECKPOINT:-$here/../models/edge}" && pwd)
passes=${PASSES:-2} rate=${RATE:-1e-4} batch=${BATCH:-16} seed=${SEED:-0}
mkdir -p "$work"
cd "$work"

# GloVe's vectors and the encoder's behind them, for the words of the training set.
[ -e "$vectors" ] || qa-edge vectors --encoder "${ENCODER:-sentence-transformers/all-MiniLM-L6-v2}" --squad "$train" \
    --min-count 2 --beside "$glove" -o "$vectors"
# The student to go on from, with the word vectors that the repository does not hold.
if [ ! -e start/vectors.safetensors ]; then
    rm -rf start
    cp -r "$checkpoint" start
    python "$here/keep_checkpoint.py" restore start --vectors "$vectors" --squad "$train"
fi
[ -e domain ] || python "$here/cut_domain.py" --squad "$train" --dev "$dev" --checkpoint start -o domain

# adapt RUN SQUAD OPTION...: a short run on SQUAD from the student. The same command again goes on with it.
adapt() {
    run=$1 squad=$2
    shift 2
    [ -e "$run/model.safetensors" ] && return
    qa-edge distill --squad "$squad" --init start --vectors "$vectors" --heldout 0 --batch-size "$batch" \
        --rate "$rate" --seed "$seed" --warmup 20 --schedule cosine --save-every 100 --log-every 50 "$@" -o "$run"
}
# score MODEL NAME: its answers to the domain's test part, and to other questions, which it may forget.
score() {
    for part in test other; do
        [ -e "$2.$part.json" ] || qa-edge evaluate "$1" --squad domain/$part.json -o "$2.$part.json"
    done
}
precision=no
if grep -q avx512_bf16 /proc/cpuinfo 2> /dev/null; then precision=bf16; fi
teach="--teacher $teacher --temperature 2 --mse-weight 0 --alignment offset"

score start before
score "$teacher" teacher
# shellcheck disable=SC2086
{
    adapt unlabelled domain/questions.json $teach --rho 1 --epochs "$passes" --precision $precision
    adapt labelled domain/labelled.json $teach --rho 0.7 --epochs "$passes" --precision $precision
    adapt alone domain/few.json --teacher none --epochs $((4 * passes)) --precision $precision
}
for run in unlabelled labelled alone; do score $run $run; done

# The device: the words that the student was trained on, and the domain's, in the table.
[ -e domain.qab ] || qa-edge export alone --tflite --int8 --text "$train" --words domain/words.txt \
    --questions domain/few.json --calibrate-on domain/rest.json --margin 1 -o domain.qab
# The domain's words alone.
[ -e small.qab ] || qa-edge export alone --tflite --int8 --words domain/words.txt \
    --questions domain/few.json --calibrate-on domain/rest.json --margin 1 -o small.qab
for bundle in domain small; do score $bundle.qab $bundle; done

echo "The students, through torch:"
python "$here/domain_table.py" domain before unlabelled labelled alone teacher
if [ -e "$checkpoint.qab" ]; then
    echo "Bundles, in int8:"
    score "$checkpoint.qab" shipped
    python "$here/domain_table.py" domain shipped domain small
fi
