# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Sourced by ./demo and ./test: installs Debian packages that are missing, and says so.

packages_build="gcc libc6-dev xz-utils meson ninja-build pkg-config python3 libdpdk-dev libmnl-dev libjansson-dev libnuma-dev
	libcmocka-dev"
packages_demo="iproute2 redis-server redis-tools procps"
packages_test="iproute2 redis-server redis-tools procps clang clang-format libclang-rt-14-dev nginx-light curl wget
	netcat-openbsd socat iperf3 openssh-server openssh-client strace wrk postgresql
	gunicorn python3-psycopg2 python3-redis iputils-ping tshark spin nftables dpdk
	qemu-system-x86 busybox-static pciutils valgrind"

# as_root COMMAND...
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "This needs root, and there is no sudo: $*" >&2
		return 1
	fi
}

package_is_installed() {
	# nginx comes in several builds
	case $1 in nginx-light) command -v nginx >/dev/null && return 0 ;; esac
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages PACKAGE...
install_packages() {
	local p missing=()

	if ! command -v apt-get >/dev/null; then
		echo "No apt-get here: install the counterparts of these Debian packages yourself: $*" >&2
		return 0
	fi
	for p; do
		package_is_installed "$p" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "Installing with apt-get: ${missing[*]}"
	# RUNLEVEL=1: the programs are wanted, not their services.
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y --no-install-recommends \
		"${missing[@]}" >/dev/null
}

# What our own DPDK driver is built with, which no package has. Without it all else is built.
fetch_dpdk_sdk() {
	scripts/dpdk-sdk .cache/dpdk-sdk || echo "Going on without it" >&2
}

# What the guests of tests/qemu run. Without it their tests are skipped.
fetch_guest_kernel() {
	scripts/guest-kernel .cache/guest-kernel || echo "Going on without it" >&2
}

# build_in DIR OPTION...: configures and builds ($targets, or everything); quiet unless it fails.
build_in() {
	local dir=$1 log
	shift
	log=$(mktemp)
	if [ -f "$dir/build.ninja" ]; then
		meson setup --reconfigure "$dir" "$@" >"$log" 2>&1
	else
		meson setup "$dir" "$@" >"$log" 2>&1
	fi && ninja -C "$dir" ${targets-} >"$log" 2>&1 || {
		cat "$log" >&2
		rm -f "$log"
		echo "The build in $dir failed." >&2
		return 1
	}
	rm -f "$log"
}
