#!/usr/bin/env bash
# Whether records go through the endpoint and come back: health, a record written, the same record read.
#
#   smoke.sh                      from here, where the endpoint's name resolves
#   smoke.sh --via INSTANCE       the same on an instance, through SSM; needs nothing from here but AWS
#   smoke.sh --dry-run            prints what it would do
#
#   --url URL      default: https://DNS_NAME of vars.sh
#   --ca FILE      who signed the certificate; default: deploy/tls/ca.pem if it is there
#   --topic TOPIC  default: penstock-smoke; it must be there (create-topic.sh)
#
# Prints a line a step. Exit code: 0 all went well; 1 not; 2 wrong usage.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
set -- "${arguments[@]}"

url=https://$DNS_NAME topic=penstock-smoke via="" ca=""
[ ! -e "$here/tls/ca.pem" ] || ca=$here/tls/ca.pem
while [ $# -gt 0 ]; do
  case $1 in
    --url) url=${2:?--url needs a value}; shift 2 ;;
    --ca) ca=${2:?--ca needs a value}; shift 2 ;;
    --topic) topic=${2:?--topic needs a value}; shift 2 ;;
    --via) via=${2:?--via needs a value}; shift 2 ;;
    *) die "there is no option $1" 2 ;;
  esac
done

if [ -n "$via" ]; then
  exec "$here/on-instance.sh" ${dry_run:+--dry-run} "$via" /opt/penstock/bin/smoke-bridge.sh --topic "$topic"
fi
PENSTOCK_URL=$url PENSTOCK_CA=$ca run "$here/instance/smoke-bridge.sh" --topic "$topic"
