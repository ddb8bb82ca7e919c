#!/bin/sh
# Produces the same records as one batch into one topic for each codec, with kcat (librdkafka).
# Null value: kcat writes an empty one as null under -Z. kcat gives its headers to every record of a run.
set -eu
bootstrap=$1
records() {
    printf 'k1:v1\n'
    printf ':empty key\n'
    printf 'tombstone:\n'
    i=0
    while [ $i -lt 900 ]; do
        printf 'k%d:{"level":"info","message":"line %d"}\n' $i $i
        i=$((i + 1))
    done
}
produce() {
    records | kcat -b "$bootstrap" -P -t "$2" -p 0 -z "$1" -K : -Z -H a=1 -H a=2 -H b \
        -X linger.ms=2000 -X batch.size=1000000 -X enable.idempotence=true
}
for codec in none gzip snappy lz4 zstd; do
    produce $codec librdkafka-$codec
done
produce lz4 librdkafka-log-append-time
