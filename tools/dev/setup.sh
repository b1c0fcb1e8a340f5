# shellcheck shell=bash
# Debian packages: which ones each purpose needs, and their installation without questions. Sourced by ./dev.

policy_rc=/usr/sbin/policy-rc.d
policy_rc_saved=/usr/sbin/policy-rc.d.before-postern
policy_rc_mark='# put here by ./dev setup for the time of the installation'

debian_version() {
  local version
  version=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_ID:-}") || true
  echo "${version:-unknown}"
}

# The clang of each release; the format of the sources is clang-format 14's.
clang_version() { if [ "$(debian_version)" = 12 ]; then echo 14; else echo 19; fi; }

# Packages of the purposes named, one a line.
packages_for() {
  local boost=1.83 clang purpose
  clang=$(clang_version)
  if [ "$(debian_version)" = 12 ]; then boost=1.81; fi
  for purpose in "$@"; do
    case $purpose in
      build)
        printf '%s\n' g++ cmake ninja-build ccache libssl-dev "libboost$boost-dev" "libboost-json$boost-dev" libyaml-cpp-dev \
          prometheus-cpp-dev libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
        ;;
      demo) printf '%s\n' iptables iproute2 nginx redis-server python3 python3-redis python3-yaml openssl procps curl ;;
      test) printf '%s\n' libgtest-dev libgmock-dev faketime softhsm2 libengine-pkcs11-openssl python3-yaml python3-venv python3-grpcio "clang-$clang" "libclang-rt-$clang-dev" "clang-format-$clang" ;;
      cluster) printf '%s\n' containerd runc containernetworking-plugins ;;
      lint) printf '%s\n' "clang-tidy-$clang" ;;
      images) printf '%s\n' mmdebstrap python3 ;;
      images-root) packages_for build; printf '%s\n' iptables python3 ;;
      *) die "setup: no purpose '$purpose' (expected build, demo, test, cluster, lint or images)" ;;
    esac
  done
}

# Those of the packages that are not installed.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p') || true
  printf '%s\n' "$@" | grep -vxF -f <(printf '%s\n' "$installed" none) || true
}

# Installs what is missing for the purposes named. Cheap when nothing is: one dpkg-query.
setup() {
  local packages missing
  if ! command -v dpkg-query >/dev/null; then
    printf 'setup: this is not Debian; going on with what is installed. Needed are the likes of: %s\n' "$(packages_for "$@" | tr '\n' ' ')" >&2
    return
  fi
  packages=$(packages_for "$@")
  missing=$(missing_packages $packages)
  [ -n "$missing" ] || return 0
  case $(debian_version) in
    12 | 13) ;;
    *) die "setup: this is neither Debian 12 nor 13. Install the likes of these, then try again:" $missing ;;
  esac
  say "set up: $(wc -w <<<"$missing") packages are missing:" $missing
  if [ "$(id -u)" = 0 ]; then
    install_packages $missing
  elif command -v sudo >/dev/null; then
    sudo -n true 2>/dev/null || die "setup: installing them needs root. Run: sudo ./dev setup"
    sudo "$root/dev" setup "$@"
  else
    die "setup: installing them needs root. Run as root: apt-get install --no-install-recommends" $missing
  fi
}

apt() {
  DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -y -q -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef \
    -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" </dev/null
}

# Shows apt's output as it goes, a short line for each package; all of it is kept in the log.
progress() {
  tee -a "$1" | awk '/^Get:/ { printf "    fetch %s\n", $5; fflush(); next }
                     /^(Unpacking|Setting up) / { printf "    %s %s\n", tolower($1 == "Setting" ? "set up" : "unpack"), ($1 == "Setting" ? $3 : $2); fflush() }
                     /^(E:|W:|Err:)/ { print "    " $0; fflush() }'
}

install_packages() {
  local log=build/setup.log started=$SECONDS
  mkdir -p build
  : >"$log"
  trap allow_services EXIT
  hold_services
  if ! apt-get --simulate -qq install "$@" >/dev/null 2>&1; then
    printf '    apt-get update\n'
    apt update 2>&1 | progress "$log" || die "setup: apt-get update failed; see $log"
  fi
  # An index that is out of date names files that are gone: fetch it anew, once.
  if ! apt install --no-install-recommends "$@" 2>&1 | progress "$log"; then
    printf '    apt-get update, and again\n'
    apt update 2>&1 | progress "$log" || die "setup: apt-get update failed; see $log"
    apt install --no-install-recommends "$@" 2>&1 | progress "$log" || die "setup: apt-get install failed; see $log"
  fi
  keep_disabled "$@"
  allow_services
  trap - EXIT
  printf '    installed in %d s\n' $((SECONDS - started))
}

# nginx, redis-server and containerd would start as services of their own; the tests start theirs with their own configuration.
hold_services() {
  allow_services  # what an interrupted run left behind
  if [ -e "$policy_rc" ]; then mv "$policy_rc" "$policy_rc_saved"; fi
  printf '#!/bin/sh\n%s\nexit 101\n' "$policy_rc_mark" >"$policy_rc"
  chmod 755 "$policy_rc"
}

allow_services() {
  if [ -e "$policy_rc" ] && grep -qxF "$policy_rc_mark" "$policy_rc"; then rm -f "$policy_rc"; fi
  if [ -e "$policy_rc_saved" ]; then mv "$policy_rc_saved" "$policy_rc"; fi
}

# Nor shall those that were installed just now start with the machine.
keep_disabled() {
  command -v systemctl >/dev/null || return 0
  local package
  for package in "$@"; do
    case $package in nginx | redis-server | containerd) systemctl disable --quiet "$package" 2>/dev/null || true ;; esac
  done
}
