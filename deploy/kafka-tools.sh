#!/usr/bin/env bash
# Packs Kafka's own tools and MSK's login module for the instances that speak Kafka natively:
# deploy/dist/kafka-tools-VERSION.tar.gz, and its SHA-256 beside it. Needs Maven and Java 17.
#
#   kafka-tools.sh [--dry-run]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
options "$@"
[ ${#arguments[@]} -eq 0 ] || die "there is no option ${arguments[0]}" 2

readonly KAFKA=4.1.1 MSK_IAM=2.3.2 SLF4J=1.7.36
dist=${DIST:-$here/dist}
name=kafka-tools-$KAFKA
if [ -e "$dist/$name.tar.gz.sha256" ]; then
  say "$dist/$name.tar.gz is there"
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
dependency() {
  echo "<dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version></dependency>"
}
cat > "$scratch/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>penstock</groupId><artifactId>kafka-tools</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
$(dependency org.apache.kafka kafka-tools $KAFKA)
$(dependency software.amazon.msk aws-msk-iam-auth $MSK_IAM)
$(dependency org.slf4j slf4j-nop $SLF4J)
</dependencies></project>
END
run mvn -q -B -f "$scratch/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$scratch/$name/libs"
run mkdir -p "$dist"
pack "$dist/$name.tar.gz" "$scratch" "$name"
