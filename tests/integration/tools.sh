#!/usr/bin/env bash
# Builds the Go programs that the integration tests run, where they are missing or of another version.
# Usage: tests/integration/tools.sh [FOLDER]     default: .tools at the repository's root
# Needs Go 1.26 or newer and the Go module proxy; whatever cannot be built is an error, never skipped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(mkdir -p "${1:-$root/.tools}" && cd "${1:-$root/.tools}" && pwd)

command -v go >/dev/null || { echo "tools.sh: the Go toolchain is missing: https://go.dev/dl" >&2; exit 1; }

# build MODULE VERSION PACKAGE [LDFLAGS]
build() {
  local program="$folder/${3##*/}" flags="-s -w${4:+ $4}" about
  about=$([[ ! -x $program ]] || go version -m "$program")
  if [[ $about == *$'\tmod\t'"$1"$'\t'"$2"$'\t'* && $about == *"-ldflags=\"$flags\""* ]]; then
    return
  fi
  echo "building ${3##*/} $2"
  GOBIN=$folder go install -ldflags "$flags" "$3@$2"
  [[ -x $program ]] || { echo "tools.sh: $program was not built" >&2; exit 1; }
}

# A plain `go install` of helm believes in Kubernetes 1.20; its release build sets these from its client-go.
kubernetes="-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37"
kubernetes+=" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37"

build helm.sh/helm/v3 v3.22.0 helm.sh/helm/v3/cmd/helm "$kubernetes"
build github.com/norwoodj/helm-docs v1.14.2 github.com/norwoodj/helm-docs/cmd/helm-docs
build github.com/fullstorydev/grpcurl v1.9.3 github.com/fullstorydev/grpcurl/cmd/grpcurl
build github.com/bojand/ghz v0.93.0 github.com/bojand/ghz/cmd/ghz

# promtool comes with Debian's package; unpacked, not installed. Anywhere else, put one into the folder.
promtool() {
  [[ ! -x $folder/promtool ]] || return 0
  command -v apt-get >/dev/null || { echo "tools.sh: put promtool into $folder: https://prometheus.io/download" >&2; exit 1; }
  echo "unpacking promtool"
  local scratch
  scratch=$(mktemp -d)
  (cd "$scratch" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; } } &&
    dpkg -x prometheus_*.deb .)
  cp "$scratch/usr/bin/promtool" "$folder/promtool"
  rm -rf "$scratch"
}
promtool

# Redis comes with Debian's packages, as do two libraries that it needs and few machines have.
redis() {
  [[ ! -x $folder/redis/redis-server ]] || return 0
  command -v apt-get >/dev/null || { echo "tools.sh: put redis-server into $folder/redis: https://redis.io" >&2; exit 1; }
  echo "unpacking redis-server"
  local scratch packages=(redis-tools libjemalloc2 liblzf1)
  scratch=$(mktemp -d)
  (cd "$scratch" &&
    { apt-get download -q "${packages[@]}" || { apt-get update -q && apt-get download -q "${packages[@]}"; } } &&
    for package in *.deb; do dpkg -x "$package" .; done)
  mkdir -p "$folder/redis/lib"
  cp "$scratch"/usr/lib/*/*.so.* "$folder/redis/lib"
  # The server is the same program as its checkers, and looks at its name.
  cp "$scratch/usr/bin/redis-check-rdb" "$folder/redis/redis-server"
  rm -rf "$scratch"
}
redis
