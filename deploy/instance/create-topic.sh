#!/usr/bin/env bash
# Creates a topic with Kafka's own tool; one that is there already is left as it is and described.
#
#   create-topic.sh --topic orders [--partitions 6] [--replication-factor 3] [--config retention.ms=86400000]…
#
# kafka.sh beside it says which cluster. Exit code: 0 the topic is there; 1 it is not; 2 wrong usage.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

topic="" partitions=6 replication=3 config=()
while [ $# -gt 0 ]; do
  case $1 in
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    --partitions) partitions=${2:?--partitions needs a value}; shift 2 ;;
    --replication-factor) replication=${2:?--replication-factor needs a value}; shift 2 ;;
    --config) config+=(--config "${2:?--config needs a value}"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "create-topic.sh: there is no option $1; --help lists them" >&2; exit 2 ;;
  esac
done
[ -n "$topic" ] || { echo "create-topic.sh: no --topic" >&2; exit 2; }

# shellcheck source-path=SCRIPTDIR source=kafka.sh
. "$here/kafka.sh"
kafka_tool TopicCommand --command-config --create --if-not-exists --topic "$topic" \
  --partitions "$partitions" --replication-factor "$replication" "${config[@]}"
kafka_tool TopicCommand --command-config --describe --topic "$topic"
