#!/usr/bin/env bash
# Builds the Go programs that the integration tests run, and fetches what else they read, where it is missing or of
# another version.
# Usage: tests/integration/tools.sh [FOLDER [PROGRAM...]]     default: .tools at the repository's root, all of it
# Needs Go 1.26 or newer and the Go module proxy; whatever cannot be built is an error, never skipped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(mkdir -p "${1:-$root/.tools}" && cd "${1:-$root/.tools}" && pwd)

only=" ${*:2} "

# Programs that are there soon, not fast ones: unoptimized they take two thirds of the time to build.
export GOFLAGS='"-gcflags=all=-N -l"'

command -v go >/dev/null || { echo "tools.sh: the Go toolchain is missing: https://go.dev/dl" >&2; exit 1; }

wanted() {
  [[ $only == "  " || $only == *" $1 "* ]]
}

# build MODULE VERSION PACKAGE [LDFLAGS [NAME]]
build() {
  local name=${5:-${3##*/}} flags="-s -w${4:+ $4}" about
  local program="$folder/$name"
  wanted "$name" || return 0
  about=$([[ ! -x $program ]] || go version -m "$program")
  if [[ $about == *$'\tmod\t'"$1"$'\t'"$2"$'\t'* && $about == *"-ldflags=\"$flags\""* ]]; then
    return
  fi
  echo "building $name $2"
  GOBIN=$folder go install -ldflags "$flags" "$3@$2"
  [[ $name == "${3##*/}" ]] || mv "$folder/${3##*/}" "$program"
  [[ -x $program ]] || { echo "tools.sh: $program was not built" >&2; exit 1; }
}

# A plain `go install` of helm believes in Kubernetes 1.20; its release build sets these from its client-go.
kubernetes="-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37"
kubernetes+=" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37"

build helm.sh/helm/v3 v3.22.0 helm.sh/helm/v3/cmd/helm "$kubernetes"
build github.com/norwoodj/helm-docs v1.14.2 github.com/norwoodj/helm-docs/cmd/helm-docs
build github.com/fullstorydev/grpcurl v1.9.3 github.com/fullstorydev/grpcurl/cmd/grpcurl
build github.com/bojand/ghz v0.93.0 github.com/bojand/ghz/cmd/ghz
# What Docker Compose itself reads its files by; it needs no Docker.
build github.com/compose-spec/compose-go/v2 v2.16.2 github.com/compose-spec/compose-go/v2/cmd "" compose

# Schemas of the custom resources that the chart makes, out of their own projects' modules: crds MODULE VERSION FILE...
crds() {
  wanted crds || return 0
  local module=$1@$2 from file
  shift 2
  mkdir -p "$folder/crds"
  [[ $(cat "$folder/crds/${1##*/}.from" 2>/dev/null) != "$module" ]] || return 0
  echo "fetching schemas of $module"
  from=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  for file in "$@"; do
    install -m 644 "$from/$file" "$folder/crds/"
  done
  echo "$module" >"$folder/crds/${1##*/}.from"
}
operator=example/prometheus-operator-crd/monitoring.coreos.com
crds github.com/prometheus-operator/prometheus-operator v0.85.0 ${operator}_servicemonitors.yaml ${operator}_prometheusrules.yaml
crds github.com/kedacore/keda/v2 v2.21.0 config/crd/bases/keda.sh_scaledobjects.yaml
crds github.com/cert-manager/cert-manager v1.21.2 deploy/crds/cert-manager.io_certificates.yaml

# Jaeger v2. Its releases have two numbers, of which Go knows the first alone; as the module replaces another, it is built
# in its own folder. Its web pages are not in it, its API is.
jaeger() {
  wanted jaeger || return 0
  local version=v2.13.0 module=github.com/jaegertracing/jaeger program="$folder/jaeger" source
  if [[ -x $program && $("$program" version 2>/dev/null) == *"\"$version\""* ]]; then
    return
  fi
  echo "building jaeger $version, which takes minutes"
  source=$(go mod download -json "$module@v1.76.0" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  # Paths cut as the Collector's builder does: else nothing that is compiled for one is found for the other.
  (cd "$source" &&
    go build -trimpath -ldflags "-s -w -X $module/internal/version.latestVersion=$version" -o "$program" ./cmd/jaeger)
}
jaeger

collector() {
  wanted otelcol || return 0
  local parts="$root/tests/integration/otelcol.yaml" scratch
  [[ ! -x $folder/otelcol ]] || ! cmp -s "$parts" "$folder/otelcol.yaml" || return 0
  echo "building otelcol v0.140.1"
  scratch=$(mktemp -d)
  GOBIN=$scratch go install go.opentelemetry.io/collector/cmd/builder@v0.140.0
  (cd "$scratch" && ./builder --config "$parts")
  cp "$scratch/otelcol/otelcol" "$parts" "$folder"
  rm -rf "$scratch"
}
collector

# unpack PACKAGE...: Debian's packages into $scratch, not installed. Anywhere else, put the programs into the folder.
unpack() {
  command -v apt-get >/dev/null || { echo "tools.sh: put the programs of $* into $folder" >&2; exit 1; }
  echo "unpacking $*"
  scratch=$(mktemp -d)
  (cd "$scratch" && { apt-get download -q "$@" || { apt-get update -q && apt-get download -q "$@"; } } &&
    for package in *.deb; do dpkg -x "$package" .; done)
}

prometheus() {
  wanted prometheus || wanted promtool || return 0
  [[ ! -x $folder/promtool || ! -x $folder/prometheus ]] || return 0
  local scratch
  unpack prometheus
  cp "$scratch/usr/bin/promtool" "$scratch/usr/bin/prometheus" "$folder"
  rm -rf "$scratch"
}
prometheus

# The server needs two libraries that few machines have.
redis() {
  wanted redis || return 0
  [[ ! -x $folder/redis/redis-server ]] || return 0
  local scratch
  unpack redis-tools libjemalloc2 liblzf1
  mkdir -p "$folder/redis/lib"
  cp "$scratch"/usr/lib/*/*.so.* "$folder/redis/lib"
  # The server is the same program as its checkers, and looks at its name.
  cp "$scratch/usr/bin/redis-check-rdb" "$folder/redis/redis-server"
  rm -rf "$scratch"
}
redis
