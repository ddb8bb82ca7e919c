#!/usr/bin/env bash
# Makes the bridge's certificate where no authority does: an authority of its own in deploy/tls, a certificate for
# DNS_NAME, and the secret that instances fetch both from. The authority's certificate goes into the bucket, for clients.
#
#   certificate.sh            makes what is not there
#   certificate.sh --renew    a new certificate of the same authority into the same secret; instances take it within
#                             two minutes, without a restart
#   certificate.sh --dry-run  prints what it would do
#
# Prints the secret's ARN. The authority's key stays in deploy/tls/ca.key: keep it, or every client has to be told anew.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
set -- "${arguments[@]}"
renew=""
case ${1:-} in
  "") ;;
  --renew) renew=yes ;;
  *) die "there is no option $1" 2 ;;
esac

tls=${TLS_DIR:-$here/tls}
secret=$stack-bridge-tls
bucket=$(output "$stack-artifacts" Bucket)
[ -n "$bucket" ] || die "there is no stack $stack-artifacts yet: provision.sh makes it"

authority() {
  [ -e "$tls/ca.pem" ] && return
  (umask 077 && mkdir -p "$tls")
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$stack authority" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$tls/ca.key" -out "$tls/ca.pem" 2> /dev/null
  chmod 600 "$tls/ca.key"
}

certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$DNS_NAME" \
    -addext "subjectAltName=DNS:$DNS_NAME" -addext extendedKeyUsage=serverAuth -addext basicConstraints=critical,CA:FALSE \
    -keyout "$tls/server.key" -out "$tls/server.csr" 2> /dev/null
  openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -days 365 -copy_extensions copyall \
    -out "$tls/server.pem" 2> /dev/null
  (umask 077 && cat "$tls/server.pem" "$tls/server.key" > "$tls/secret.pem")
  rm "$tls/server.csr" "$tls/server.key" "$tls/server.pem"
}

arn=$(ask "arn of $secret" aws secretsmanager describe-secret --secret-id "$secret" --query ARN --output text 2> /dev/null) || arn=""
# One that teardown.sh deleted can be had back for seven days.
if [ -n "$arn" ] && [ -z "$dry_run" ] && aws secretsmanager describe-secret --secret-id "$secret" --query DeletedDate --output text | grep -qv None; then
  run aws secretsmanager restore-secret --secret-id "$secret" > /dev/null
  [ -e "$tls/ca.key" ] || die "$tls/ca.key is gone, and $secret holds a certificate that it signed: delete the secret, or set TLS_SECRET_ARN"
  renew=yes
fi
if [ -n "$arn" ] && [ -z "$renew" ]; then
  echo "$arn"
  exit
fi
run authority
run certificate
if [ -n "$arn" ]; then
  run aws secretsmanager put-secret-value --secret-id "$secret" --secret-string "file://$tls/secret.pem" > /dev/null
else
  arn=$(run aws secretsmanager create-secret --name "$secret" --description "Certificate and key of $stack-bridge" \
    --secret-string "file://$tls/secret.pem" --query ARN --output text)
fi
run rm -f "$tls/secret.pem"
run aws s3 cp --only-show-errors "$tls/ca.pem" "s3://$bucket/trust/ca.pem"
echo "$arn"
