# shellcheck shell=bash
# The build trees under build/: release, asan, tsan and fuzz. Sourced by ./dev.

# At most one compiler for each core and for each 1.2 GB that is free: the largest sources need about that.
jobs_here() {
  local cores free
  cores=$(nproc)
  free=$(awk '/^MemAvailable:/ { print int($2 / 1200000) }' /proc/meminfo)
  if [ "$free" -lt 1 ]; then free=1; fi
  if [ "$free" -lt "$cores" ]; then echo "$free"; else echo "$cores"; fi
}

# The programs whose main is in the sources.
programs() {
  if [ -e proxy/main.cpp ]; then echo postern-proxy; fi
  if [ -e cli/main.cpp ]; then echo posternctl; fi
  if [ -e control/main.cpp ]; then echo postern-control; fi
}

# Every hand-over between threads is in proxy/, and base/ is what it is made of.
tsan_targets() { echo unit_proxy unit_base postern-proxy; }

fuzz_targets() {
  local source
  for source in tests/fuzz/*_fuzz.cpp; do
    if [ -e "$source" ]; then basename "$source" .cpp; fi
  done
}

cpp_sources() { git ls-files -z --cached --others --exclude-standard '*.cpp' '*.hpp' | sort -z; }

cached() { sed -n "s/^$2:[A-Z]*=//p" "build/$1/CMakeCache.txt"; }

gtest_installed() { [ -e /usr/include/gtest/gtest.h ]; }

# configure <tree> [options of cmake]
configure() {
  local tree=$1 options=() tests=OFF
  shift
  if gtest_installed; then tests=ON; fi
  # Sanitizer trees keep assertions, and are compiled for speed of compilation first.
  case $tree in
    release) options=(-DCMAKE_BUILD_TYPE=Release -DPOSTERN_TESTS=$tests -DPOSTERN_TREES="$root/build" -DPOSTERN_FUZZ_SECONDS="${POSTERN_FUZZ_SECONDS:-10}") ;;
    asan) options=(-DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_CXX_FLAGS_SANITIZE='-O1 -g1' -DPOSTERN_SANITIZE=address) ;;
    tsan) options=(-DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_CXX_FLAGS_SANITIZE='-O1 -g1' -DPOSTERN_SANITIZE=thread) ;;
    # Warnings are g++'s business.
    fuzz) options=(-DCMAKE_BUILD_TYPE=Sanitize -DPOSTERN_TESTS=OFF -DPOSTERN_FUZZ=ON -DCMAKE_CXX_COMPILER="clang++-$(clang_version)"
      -DCMAKE_CXX_FLAGS_SANITIZE='-O1 -g1 -w -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -U_FORTIFY_SOURCE') ;;
  esac
  mkdir -p build
  cmake -G Ninja -S . -B "build/$tree" "${options[@]}" "$@" >"build/$tree.configure.log" 2>&1 || {
    cat "build/$tree.configure.log" >&2
    die "cmake could not configure build/$tree"
  }
}

# build <tree> <target>...
build() {
  local tree=$1
  shift
  NINJA_STATUS='    [%f/%t, %e s] ' ninja -C "build/$tree" -j "$(jobs_here)" "$@"
}

build_tree() {
  local tree=$1
  shift
  configure "$tree"
  build "$tree" "$@"
}

# etcd and kube-apiserver for the tests, into build/kube; kept until what they are made from changes.
build_kube() { POSTERN_KUBE_JOBS=$(jobs_here) tests/k8s/build build/kube; }

# The rest of a cluster, into build/node; likewise.
build_node() { POSTERN_KUBE_JOBS=$(jobs_here) tests/node/build build/node; }
# helm, into build/helm.
build_helm() { POSTERN_KUBE_JOBS=$(jobs_here) tests/chart/build build/helm; }
# SPIRE's server and agent, and a go-spiffe peer, into build/spire; likewise.
build_spire() { POSTERN_SPIRE_JOBS=$(jobs_here) tests/spire/build build/spire; }

# Its last lines are ctest's summary.
run_ctest() { exec ctest --test-dir build/release --output-on-failure --no-tests=error -j "$(jobs_here)" "$@"; }
