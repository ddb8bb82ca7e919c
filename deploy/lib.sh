# shellcheck shell=bash
# Sourced by the scripts of this folder: settings, what they print, and how they ask AWS.

# A command that fails in $(…) ends the script, too.
shopt -s inherit_errexit

# shellcheck source-path=SCRIPTDIR source=vars.sh
. "$(dirname "${BASH_SOURCE[0]}")/vars.sh"
export AWS_DEFAULT_REGION=$AWS_REGION AWS_PAGER=""

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stack=msk-$NAME
dry_run=""

say() {
  echo "$*" >&2
}

die() {
  echo "$(basename "$0"): $1" >&2
  exit "${2:-1}"
}

# What stands at the top of the script, without the hashes.
usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

# Takes the options that every script has; the others are left in `arguments`.
options() {
  arguments=()
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=yes ;;
      -h | --help) usage; exit 0 ;;
      *) arguments+=("$1") ;;
    esac
    shift
  done
}

# Runs a command that changes something; with --dry-run, prints it.
run() {
  if [ -n "$dry_run" ]; then
    { printf '+'; printf ' %q' "$@"; echo; } >&2
  else
    "$@"
  fi
}

# Asks AWS something; with --dry-run, the answer is its name in angle brackets, and nothing is asked.
ask() {
  local what=$1
  shift
  if [ -n "$dry_run" ]; then
    echo "<$what>"
  else
    "$@"
  fi
}

# What stacks gave out, a line "key<tab>value" each; of those that were asked about once.
declare -A outputs=()

# The output KEY of a stack; empty when there is no such stack.
output() {
  ask "$1:$2" stack_output "$@"
}

stack_output() {
  [ -n "${outputs[$1]+known}" ] || ask_outputs "$1"
  sed -n "s/^$2\t//p" <<< "${outputs[$1]}"
}

ask_outputs() {
  local answer
  answer=$("${as[@]}" aws cloudformation describe-stacks --stack-name "$1" \
    --query 'Stacks[0].Outputs[].[OutputKey,OutputValue]' --output text 2>&1) || {
    [[ $answer == *"does not exist"* ]] || die "$answer"
    answer=""
  }
  outputs[$1]=$answer
}

# The value of a parameter of a stack; empty when there is no such stack.
stack_parameter() {
  local value
  value=$(aws cloudformation describe-stacks --stack-name "$1" \
    --query "Stacks[0].Parameters[?ParameterKey=='$2'].ParameterValue | [0]" --output text 2> /dev/null) || return 0
  [ "$value" = None ] || echo "$value"
}

# In front of commands for the consumer's account.
as=()

# Deploys a template: the stack's suffix, the template, then Name=value for its parameters. Changes nothing when nothing
# has changed.
deploy() {
  local suffix=$1 template=$2
  shift 2
  say "== $stack$suffix"
  run "${as[@]}" aws cloudformation deploy --no-fail-on-empty-changeset --capabilities CAPABILITY_IAM \
    --stack-name "$stack$suffix" --template-file "$here/$template" --parameter-overrides "$@" >&2
  # Asked here, and not in $(output …), once is enough.
  [ -n "$dry_run" ] || ask_outputs "$stack$suffix"
}

# A reproducible archive of a folder, and its SHA-256 beside it: the archive, where the folder is, the folder.
pack() {
  if [ -n "$dry_run" ]; then
    say "+ pack $1"
    return
  fi
  tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r-w --mtime="@${SOURCE_DATE_EPOCH:-0}" \
    --format=gnu -C "$2" -cf - "$3" | gzip --no-name > "$1.part"
  mv "$1.part" "$1"
  sha256sum "$1" | cut -d ' ' -f 1 > "$1.sha256"
  say "$1 $(cat "$1.sha256")"
}

# The SHA-256 that `pack` left beside an archive.
sum_of() {
  ask "sha256 of $(basename "$1")" cat "$1.sha256"
}

# Puts an archive into the bucket under a name that holds its SHA-256, unless it is there; prints where.
upload() {
  local file=$1 bucket=$2 sha key
  sha=$(sum_of "$file")
  [ -n "$dry_run" ] || sha=${sha:0:16}
  key=releases/$(basename "$file" .tar.gz)-$sha.tar.gz
  if [ -n "$dry_run" ] || ! aws s3api head-object --bucket "$bucket" --key "$key" > /dev/null 2>&1; then
    run aws s3 cp --only-show-errors "$file" "s3://$bucket/$key"
  fi
  echo "s3://$bucket/$key"
}

# The newest release of deploy/dist, or RELEASE.
release() {
  local file=$RELEASE
  if [ -z "$file" ]; then
    file=$(find "${DIST:-$here/dist}" -name 'penstock-*.tar.gz' -printf '%T@ %p\n' 2> /dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)
  fi
  [ -e "$file.sha256" ] || die "no release: run $here/build.sh, or set RELEASE"
  echo "$file"
}

# Asks again every few seconds until a command succeeds: how long at most, what is waited for, the command.
wait_for() {
  local seconds=$1 what=$2 until=$((SECONDS + $1))
  shift 2
  if [ -n "$dry_run" ]; then
    say "+ wait for $what"
    return
  fi
  until "$@"; do
    [ $SECONDS -lt "$until" ] || die "$what: not within $seconds s"
    sleep "${WAIT_SECONDS:-5}"
  done
}

# Whether at least so many targets of a group are healthy.
healthy() {
  local states
  states=$(aws elbv2 describe-target-health --target-group-arn "$1" --query 'TargetHealthDescriptions[].TargetHealth.State' --output text)
  [ "$(grep -ow healthy <<< "$states" | wc -l)" -ge "$2" ]
}
