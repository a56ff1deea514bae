# Sourced by the build-* scripts: builds programs from their Go modules into a folder of the user's cache, all or nothing.
# The script sets: modules (the folder with the go.mod files), built (the final folder) and about (how long it takes).

me=$(basename "$0")

say() { printf '%s\n' "$*"; }

fail() {
	printf '%s: %s\n' "$me" "$*" >&2
	exit 1
}

# Are the named programs in this folder?
has() {
	local folder=$1 name
	shift
	for name in "$@"; do
		[[ -x "$folder/$name" ]] || return 1
	done
}

# version_of control_plane k8s.io/kubernetes
version_of() { awk -v module="$2" '{ sub(/^require /, "") } $1 == module { print $2 }' "$modules/$1/go.mod"; }

# Runs a command in the background, so that there is a sign of life every 30 s and that cleanup can end it. What it
# prints itself is shown as it comes.
timed() {
	local what=$1 started=$SECONDS next_sign=30
	shift
	say "$what"
	"$@" &
	running=$!
	while kill -0 "$running" 2>/dev/null; do
		sleep 0.2
		if (( SECONDS - started >= next_sign )); then
			say "    still running after $next_sign s"
			next_sign=$(( next_sign + 30 ))
		fi
	done
	wait "$running" || fail "$what failed after $(( SECONDS - started )) s, see above"
	running=
	say "    done in $(( SECONDS - started )) s"
}

cleanup() {
	if [[ -n "${running:-}" ]]; then
		kill "$running" 2>/dev/null || true
		wait "$running" || true
	fi
	if [[ -n "${staging:-}" ]]; then rm -rf "$staging"; fi
}

# GOTOOLCHAIN may let an older go fetch the one that go.mod asks for, so the question is asked inside the module.
check_go() {
	local module=$modules/$1 wanted found
	wanted=$(awk '$1 == "go" { print $2 }' "$module/go.mod")
	command -v go >/dev/null || fail "go is not on the PATH; install Go $wanted or newer: https://go.dev/doc/install"
	found=$(cd "$module" && GOWORK=off go env GOVERSION) || fail "go does not work here (see above)"
	found=${found#go}
	[[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
		fail "Go $found is too old; install Go $wanted or newer: https://go.dev/doc/install"
}

# Kubernetes' programs would call themselves v0.0.0-master, which clients and admission webhooks believe.
linker_flags() {
	local package version flags="-s -w"
	if version=$(version_of "$1" k8s.io/kubernetes) && [[ -n "$version" ]]; then
		local minor=${version#v1.}
		for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
		done
	fi
	printf '%s' "$flags"
}

# exec, so that the pid that cleanup knows is that of go itself and not of a shell around it.
build_program() {
	local module=$1 package=$2
	cd "$modules/$module"
	GOWORK=off CGO_ENABLED=0 exec go build -mod=readonly -trimpath -ldflags "$(linker_flags "$module")" \
		-o "$staging/$(basename "$package")" "$package"
}

# build_programs control_plane:k8s.io/kubernetes/cmd/kubectl … : they appear in their final folder together.
build_programs() {
	local cache one step=0
	cache=$(dirname "$built")
	say "Building into $built: $about"
	rm -rf "$cache"/.building.*
	staging=$(mktemp -d "$cache/.building.XXXXXX")
	chmod 755 "$staging"
	for one in "$@"; do
		step=$(( step + 1 ))
		timed "[$step/$#] $(basename "$one")" build_program "${one%%:*}" "${one#*:}"
	done
	rm -rf "$built"
	mv "$staging" "$built"
	staging=
}

# One build at a time; the second finds all done.
lock_cache() {
	local cache
	cache=$(dirname "$built")
	mkdir -p "$cache"
	exec {lock}>"$cache/.lock"
	if ! flock -n "$lock"; then
		say "Another $me is running; waiting for it"
		flock "$lock"
	fi
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}
