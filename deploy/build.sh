#!/usr/bin/env bash
# Builds the release that instances run: deploy/dist/penstock-VERSION-COMMIT-ARCH.tar.gz, its SHA-256 beside it, and in it
# the binary, its SBOM (CycloneDX), the units and the scripts.
#
#   build.sh                      made so that the same source gives the same bytes, wherever it lies
#   build.sh --verify             builds twice, in two folders, and compares
#   build.sh --zig                links with zig (PyPI: ziglang, cargo-zigbuild) for glibc 2.34, where the compiler's own
#                                 glibc is newer and the check below fails
#   build.sh --binary FILE        packs a binary that is there; with --no-sbom, without an SBOM
#   build.sh --check-glibc FILE   only checks that it runs on Amazon Linux 2023
#   build.sh --dry-run            prints what it would do
#
# Amazon Linux 2023 has glibc 2.34: a binary that asks for a symbol of a later version is refused, with the symbols.
# Needs Rust, a C compiler, binutils, cargo-cyclonedx (installed into target/tools where it is missing).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
options "$@"
set -- "${arguments[@]}"

readonly GLIBC=2.34 CYCLONEDX=0.5.7 ZIGLANG=0.15.2 ZIGBUILD=0.24.1
repository=$(cd "$here/.." && pwd)
target=${CARGO_TARGET_DIR:-$repository/target}/deploy
dist=${DIST:-$here/dist}
SOURCE_DATE_EPOCH=$(git -C "$repository" log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Fails with the symbols that are newer than what Amazon Linux 2023 has.
check_glibc() {
  local newer highest
  [ -r "$1" ] || die "there is no $1"
  highest=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
  newer=$(objdump -T "$1" | sed -n 's/.*(\?GLIBC_\([0-9.]*\))\? *\(.*\)$/\1 \2/p' | while read -r version symbol; do
    [ "$(printf '%s\n' "$version" $GLIBC | sort -V | tail -n 1)" = $GLIBC ] || echo "  $symbol (GLIBC_$version)"
  done | sort -u)
  if [ -n "$newer" ]; then
    say "$newer"
    die "$1 asks for $highest; Amazon Linux 2023 has $GLIBC. Build where glibc is older, or with --zig"
  fi
  say "$1 asks for ${highest:-no glibc}, and Amazon Linux 2023 has GLIBC_$GLIBC"
}

# The binary, with no path of this machine in it: source, target folder and cargo's home have fixed names.
compile() {
  local source=$1 into=$2 home=${CARGO_HOME:-$HOME/.cargo}
  local remap=("$source=/penstock" "$into=/target" "$home=/cargo")
  local flags
  flags=$(printf -- '-ffile-prefix-map=%s ' "${remap[@]}")
  # By a wrapper, for with --target RUSTFLAGS do not reach macros and build scripts; a path in a macro changes the hash of each
  # crate that uses it, and in the end the order of what is in the binary.
  mkdir -p "$into"
  {
    echo '#!/bin/sh'
    printf 'exec "$@"'
    printf ' --remap-path-prefix=%q' "${remap[@]}"
    echo
  } > "$into/rustc-remapped"
  chmod +x "$into/rustc-remapped"
  (
    cd "$source"
    # Options of whoever builds do not change what is built.
    unset CARGO_ENCODED_RUSTFLAGS
    export RUSTFLAGS="" RUSTC_WRAPPER=$into/rustc-remapped CFLAGS=$flags CXXFLAGS=$flags CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$into
    if [ -n "$zig" ]; then
      "$tools/bin/cargo-zigbuild" zigbuild --release --locked -p penstock --no-default-features --target "$triple.$GLIBC"
    else
      cargo build --release --locked -p penstock --no-default-features --target "$triple"
    fi
  )
}

# All that the binary was built of, as cargo knows it: a name, a version, a licence and a checksum each. The same source gives
# the same bytes here, too.
sbom() {
  local copy
  if ! command -v cargo-cyclonedx > /dev/null; then
    PATH=$repository/target/tools/bin:$PATH
    command -v cargo-cyclonedx > /dev/null ||
      cargo install --quiet cargo-cyclonedx --locked --version $CYCLONEDX --root "$repository/target/tools"
  fi
  # In a copy: it writes a file beside every manifest of the workspace.
  copy=$(mktemp -d)
  (cd "$repository" && git ls-files -z | xargs -0 cp --parents --no-dereference --target-directory "$copy")
  (cd "$copy" && cargo cyclonedx --quiet --manifest-path crates/penstock/Cargo.toml --format json --no-default-features \
    --target "$triple" --override-filename penstock.cdx)
  # Where and when it was made, and a random number, are nobody's business.
  sed -e "s|$copy|/penstock|g" -e '/^ *"serialNumber": /d' \
    -e "s|\"timestamp\": \"[^\"]*\"|\"timestamp\": \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)\"|" \
    "$copy/crates/penstock/penstock.cdx.json" > "$1"
  rm -rf "$copy"
}

layout() {
  local into=$1
  run mkdir -p "$into/bin" "$into/libexec" "$into/systemd"
  run install -m 755 "$binary" "$into/bin/penstock"
  run install -m 755 "$here"/instance/*.sh "$into/bin/"
  run install -m 755 "$here"/instance/libexec/* "$into/libexec/"
  run install -m 644 "$here"/instance/systemd/* "$into/systemd/"
  run install -m 644 "$here"/instance/{penstock.toml.in,sysusers.conf} "$repository/CHANGELOG.md" "$into/"
}

zig="" verify="" binary="" sbom=yes
while [ $# -gt 0 ]; do
  case $1 in
    --zig) zig=yes; shift ;;
    --verify) verify=yes; shift ;;
    --binary) binary=${2:?--binary needs a file}; shift 2 ;;
    --no-sbom) sbom=""; shift ;;
    --check-glibc) check_glibc "${2:?--check-glibc needs a file}"; exit ;;
    *) die "there is no option $1" 2 ;;
  esac
done

arch=$(uname -m)
triple=$arch-unknown-linux-gnu
tools=$repository/target/tools/zig
if [ -n "$zig" ] && [ ! -x "$tools/bin/cargo-zigbuild" ]; then
  run python3 -m venv "$tools"
  run "$tools/bin/pip" install -q "ziglang==$ZIGLANG" "cargo-zigbuild==$ZIGBUILD"
fi
PATH=$tools/bin:$PATH

if [ -z "$binary" ]; then
  if [ -n "$verify" ] && [ -z "$dry_run" ] && ! git -C "$repository" diff --quiet HEAD --; then
    die "--verify builds what is committed, and compares it with what is here: commit first"
  fi
  run compile "$repository" "$target"
  binary=$target/$triple/release/penstock
  if [ -n "$verify" ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    run git clone --quiet "$repository" "$scratch/elsewhere"
    run compile "$scratch/elsewhere" "$scratch/target"
    if ! run cmp "$binary" "$scratch/target/$triple/release/penstock"; then
      mv "$scratch/target/$triple/release/penstock" "$binary.elsewhere"
      die "the build is NOT reproducible: $binary.elsewhere is the other one"
    fi
    say "two builds in two folders are the same, byte for byte"
  fi
fi
run check_glibc "$binary"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
commit=$(git -C "$repository" rev-parse --short=12 HEAD)
git -C "$repository" diff --quiet HEAD -- || commit+=-changed
name=penstock-$version-$commit-$arch
staged=$(mktemp -d)
trap 'rm -rf "$staged" "${scratch:-}"' EXIT
layout "$staged/$name"
[ -z "$sbom" ] || run sbom "$staged/$name/penstock.cdx.json"
run mkdir -p "$dist"
pack "$dist/$name.tar.gz" "$staged" "$name"
echo "$dist/$name.tar.gz"
