# What the scripts share: saying things, packages, a new enough Rust. Sourced, not run.
#
# Everything here is quiet and offline when nothing is missing: packages are looked up with
# dpkg-query and only those absent are asked of apt.

bold='' plain=''
[ ! -t 2 ] || bold=$'\033[1m' plain=$'\033[0m'
shoal_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# As root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (no sudo here; run that as root, then start again)"
    fi
}

# Is version $1 at least $2? (1.85.0 is at least 1.85; 1.9 is not)
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Which of the arguments are missing? An argument is a package, or command:package for a tool
# that counts as present wherever it came from.
missing_packages() {
    local want
    for want in "$@"; do
        case $want in
        *:*) command -v "${want%%:*}" >/dev/null || echo "${want#*:}" ;;
        *) package_installed "$want" || echo "$want" ;;
        esac
    done
}

apt_log=
apt_run() {
    [ -n "$apt_log" ] || apt_log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$apt_log" 2>&1
}

# The package lists, once per run: an image may come without any, or with old ones.
apt_refreshed=
apt_refresh() {
    [ -z "$apt_refreshed" ] || return 0
    apt_refreshed=yes
    apt_run update || die "apt-get update failed: $(tail -n 1 "$apt_log")"
}

# Never removes a package to make room for another: then it fails, and says so.
apt_install() {
    apt_run install --no-install-recommends --no-remove "$@" && return 0
    apt_refresh
    apt_run install --no-install-recommends --no-remove "$@"
}

# Make sure of packages (arguments as of missing_packages).
need_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "not a Debian or Ubuntu system: what docs/dependencies.md lists has to be there already"
        return 0
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" ||
        die "apt-get could not install ${missing[*]}: $(grep -m 1 '^E:' "$apt_log" || tail -n 1 "$apt_log")"
}

rust_wanted() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$shoal_root/rust/Cargo.toml"; }

# Is $1 a cargo that runs, new enough, with a rustc of its age beside it?
rust_usable() {
    local found
    [ -x "$1" ] && [ -x "$(dirname "$1")/rustc" ] || return 1
    for found in "$1" "$(dirname "$1")/rustc"; do
        found=$("$found" --version 2>/dev/null | cut -d ' ' -f 2) || return 1
        [ -n "$found" ] && version_at_least "$found" "$(rust_wanted)" || return 1
    done
}

# Prints the path of a usable cargo that is there, or fails.
find_cargo() {
    local candidate
    for candidate in "$(command -v cargo)" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" /usr/bin/cargo \
        $(printf '%s\n' /usr/lib/rust-*/bin/cargo | sort -rV); do
        rust_usable "$candidate" && echo "$candidate" && return 0
    done
    return 1
}

apt_candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9][^ ]*\).*/\1/p'; }

# The distribution's newest Rust as a pair of packages, or nothing: cargo-web on Debian 12,
# cargo-1.N on Ubuntu, plain cargo elsewhere.
rust_packages() {
    local cargo found
    for cargo in cargo-web $(apt-cache pkgnames cargo-1. | grep -x 'cargo-1\.[0-9]*' | sort -rV) cargo; do
        found=$(apt_candidate "$cargo")
        if [ -n "$found" ] && version_at_least "${found%%[-+~]*}" "$(rust_wanted)"; then
            echo "$cargo rustc${cargo#cargo}"
            return 0
        fi
    done
}

rust_from_apt() {
    command -v apt-get >/dev/null || return 1
    local packages
    packages=$(rust_packages)
    if [ -z "$packages" ]; then # the lists may be old
        apt_refresh
        packages=$(rust_packages)
    fi
    [ -n "$packages" ] || return 1
    say "installing $packages"
    # shellcheck disable=SC2086
    apt_install $packages
}

rust_from_rustup() {
    need_packages curl:curl ca-certificates
    say "installing Rust with rustup (into ${CARGO_HOME:-$HOME/.cargo})"
    curl -sSf --proto '=https' --tlsv1.2 https://sh.rustup.rs |
        sh -s -- -q -y --no-modify-path --profile minimal >&2
}

# Prints the path of a cargo that can build rust/, installing one if there is none.
need_cargo() {
    find_cargo && return 0
    { rust_from_apt && find_cargo; } && return 0
    { rust_from_rustup && find_cargo; } && return 0
    die "no Rust of at least $(rust_wanted): none found, none from apt, none from rustup"
}
