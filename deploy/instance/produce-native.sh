#!/usr/bin/env bash
# Writes records to a topic with Kafka's own producer: each line of the files, or of standard input, is a record.
#
#   produce-native.sh --topic orders [FILE…]
#
# kafka.sh beside it says which cluster.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

topic="" files=()
while [ $# -gt 0 ]; do
  case $1 in
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -?*) echo "produce-native.sh: there is no option $1; --help lists them" >&2; exit 2 ;;
    *) files+=("$1"); shift ;;
  esac
done
[ -n "$topic" ] || { echo "produce-native.sh: no --topic" >&2; exit 2; }

# shellcheck source-path=SCRIPTDIR source=kafka.sh
. "$here/kafka.sh"
cat -- "${files[@]}" | kafka_tool ConsoleProducer --producer.config --topic "$topic" \
  --producer-property acks=all --producer-property enable.idempotence=true
