# shellcheck shell=bash disable=SC2154
# Functions for scripts that boot Debian's kernels under software emulation: get a kernel, make a root file system of this
# machine's own programs, boot it, read what came out. To be sourced by bash with `set -euo pipefail`; nothing runs then.
#
# A script sets `work` (a directory that stays from run to run) and `root` (the root file system in the making). Mounts
# nothing and needs no privilege, but for install_packages.

readonly packages=(qemu-system-x86 busybox-static cpio)
# Programs that tests and scripts inside the sandbox call, and that a distribution keeps in these packages.
readonly userland_packages=(coreutils libc-bin mount dash bash grep sed findutils util-linux procps hostname)

say() { printf '%s\n' "$*" >&2; }
die() { say "${0#"$PWD"/}: $*"; exit 2; }

install_packages() {
    apt-get install -y --no-install-recommends "$@" >"$work/install.log" 2>&1 || {
        tail -n 5 "$work/install.log" >&2
        die "the packages $* could not be installed"
    }
}

need_programs() {
    local program
    for program in qemu-system-x86_64 busybox cpio ldconfig; do
        PATH=$PATH:/sbin:/usr/sbin command -v "$program" >/dev/null ||
            die "no $program: --install, or install ${packages[*]}"
    done
}

# --- kernels -------------------------------------------------------------------------------------------------------

# The mirror of the machine's own release, from the two formats of apt's sources (sources.list(5)).
mirror() {
    {
        cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
            awk '/^URIs:/ { uri = $2 } /^Suites:/ && $2 !~ /-|\/$/ { print uri }'
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            sed 's/\[[^]]*\] *//' | awk '$1 == "deb" && $4 == "main" && $3 !~ /-|\/$/ { print $2 }'
    } | grep '/debian/*$' | head -n 1 || true
}

# apt_of SUITE PLACE: a state directory of its own for apt, so that signatures are checked and the machine's package lists
# stay as they are. Prints the configuration's path.
apt_of() {
    local suite=$1 place=$2 uri
    uri=$(mirror)
    [ -n "$uri" ] || { say "no mirror of Debian in apt's sources"; return 1; }
    mkdir -p "$place/lists/partial" "$place/cache/archives/partial" "$place/deb"
    : >"$place/status"
    echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" \
        >"$place/sources.list"
    cat >"$place/apt.conf" <<-EOF
	Dir::State "$place";
	Dir::State::lists "$place/lists";
	Dir::State::status "$place/status";
	Dir::Cache "$place/cache";
	Dir::Etc::sourcelist "$place/sources.list";
	Dir::Etc::sourceparts "/dev/null";
	Acquire::Languages "none";
	Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
	EOF
    echo "$place/apt.conf"
}

# The modules that are taken from a kernel's package: a block device without a disk, the scheduler that has weights, and the
# sockets to the kernel's ciphers.
readonly modules='/modules/[^/]*/kernel/(drivers/block/loop|block/bfq|crypto/af_alg|crypto/algif_hash)\.ko(\.xz)?$'

# fetch_kernel NAME: gets the newest cloud kernel of the suite NAME to $work/kernel/NAME/vmlinuz, and modules of it to
# $work/kernel/NAME/modules/RELEASE/, unless they are there. SUITE-generic is that for every machine: it has x32.
fetch_kernel() {
    local suite=${1%-generic} place=$work/kernel/$1 metapackage=linux-image-cloud-amd64 package release archive
    [ "$suite" = "$1" ] || metapackage=linux-image-amd64
    [ ! -s "$place/vmlinuz" ] || [ "$(cat "$place/modules/wanted" 2>/dev/null)" != "$modules" ] || return 0
    mkdir -p "$place"
    local -x APT_CONFIG
    APT_CONFIG=$(apt_of "$suite" "$place") || return 1
    # Errors of a mirror are only warned about: then the lists are empty, and the next step fails.
    apt-get update >"$place/log" 2>&1 || return 1
    package=$(apt-cache depends "$metapackage" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
    [ -n "$package" ] || return 1
    # Since 6.17 or so the image itself and its modules lie in packages that the former depends on.
    release=${package#linux-image-}
    set -- "$package"
    ! apt-cache show "linux-binary-$release" >/dev/null 2>&1 || set -- "linux-binary-$release" "linux-modules-$release"
    rm -rf "$place/vmlinuz.new" "$place/modules" "$place/modules.new" "$place"/deb/*.deb
    mkdir "$place/modules.new"
    for package; do
        (cd "$place/deb" && apt-get download "$package") >>"$place/log" 2>&1 || return 1
        archive=$(echo "$place"/deb/*.deb)
        dpkg-deb --fsys-tarfile "$archive" >"$place/data.tar" || return 1
        unpack_kernel "$place" || return 1
        rm "$archive"
    done
    [ -s "$place/vmlinuz.new" ] || return 1
    mv "$place/vmlinuz.new" "$place/vmlinuz"
    echo "$modules" >"$place/modules.new/wanted"
    mv "$place/modules.new" "$place/modules"
    rm -rf "$place/data.tar" "$place/lists" "$place/cache"
}

# unpack_kernel PLACE: the image, if PLACE/data.tar has one, and those of $modules that it has, without compression.
unpack_kernel() {
    local place=$1 file release
    while read -r file; do
        case $file in
        */vmlinuz*) tar -xOf "$place/data.tar" "$file" >"$place/vmlinuz.new" || return 1 ;;
        *)
            release=${file#*/modules/} release=${release%%/*}
            mkdir -p "$place/modules.new/$release"
            tar -xOf "$place/data.tar" "$file" >"$place/modules.new/$release/${file##*/}" || return 1
            ;;
        esac
    done < <(tar -tf "$place/data.tar" | grep -E "/vmlinuz|$modules")
    find "$place/modules.new" -name '*.xz' -exec busybox unxz {} +
}

# The suite whose AppArmor parser knows the rule `userns`: before its version 4 there is no such word.
readonly parser_suite=trixie

# fetch_parser: gets AppArmor's parser of $parser_suite to $work/apparmor, with the features that Debian pins and the C library
# that it needs, unless they are there.
fetch_parser() {
    local place=$work/apparmor
    [ ! -s "$place/apparmor_parser" ] || return 0
    mkdir -p "$place"
    local -x APT_CONFIG
    APT_CONFIG=$(apt_of "$parser_suite" "$place") || return 1
    apt-get update >"$place/log" 2>&1 || return 1
    (cd "$place/deb" && apt-get download apparmor libc6) >>"$place/log" 2>&1 || return 1
    parser_of "$place" || return 1
    rm -rf "$place/lists" "$place/cache" "$place"/deb
}

# parser_of PLACE: takes what is wanted out of PLACE/deb; the parser last, as it says that all is there.
parser_of() {
    local place=$1 file
    for file in "$place"/deb/*.deb; do dpkg-deb -x "$file" "$place/deb/root" || return 1; done
    cp -L "$place/deb/root/usr/share/apparmor-features/features" "$place/deb/root/usr/sbin/apparmor_parser" \
        "$place"/deb/root/usr/lib/*/{libc.so.6,ld-linux-x86-64.so.2} "$place/deb/" || return 1
    mv "$place"/deb/{features,libc.so.6,ld-linux-x86-64.so.2} "$place/deb/apparmor_parser" "$place/"
}

# --- the root file system ------------------------------------------------------------------------------------------

# Copies files to the same place below the root, with the shared libraries that they need. Symlinks are copied as such,
# so nothing may be written through them afterwards: an absolute one leads to the machine's own file.
take() {
    local file
    for file; do
        mkdir -p "$root${file%/*}"
        cp -P --remove-destination --preserve=mode,timestamps "$file" "$root$file"
        [ ! -L "$file" ] || continue
        { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' >>"$work/libraries" || true
    done
}

# A program without what only a debugger reads.
take_stripped() {
    take "$1"
    strip --strip-debug "$root$1"
    chmod 755 "$root$1"
}

# NAME PATH of each test program in what `cargo test --no-run` said.
built_programs() {
    sed -n 's/^ *Executable \(unittests \)\{0,1\}\([^ ]*\) (\(.*\))$/\2 \3/p' "$1" |
        sed -E "s|^src/lib\.rs|lib|; s|^tests/([^ ]*)\.rs|\1|; s| ([^/])| $PWD/\1|" |
        grep -v '^[^ ]*/'
}

# The skeleton, with the programs of this distribution, on a merged /usr.
make_root() {
    local name file files
    rm -rf "$root"
    mkdir -p "$root"/{usr/{bin,sbin,lib,lib64},dev,proc,sys,tmp,run,mnt,srv,media,root,home/tester,etc,var/tmp,vm}
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
    chmod 1777 "$root/tmp" "$root/var/tmp"
    : >"$work/libraries"
    # dpkg names some files by their place before the merge.
    mapfile -t files < <(dpkg -L "${userland_packages[@]}" 2>/dev/null | grep -E '^(/usr)?/s?bin/[^/]+$' |
        sed -E 's|^/(s?bin)/|/usr/\1/|' | sort -u)
    for file in "${files[@]}"; do [ ! -e "$file" ] || take "$file"; done
    [ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"
    for file in /usr/bin/newuidmap /usr/bin/newgidmap; do
        [ ! -f $file ] || [ -L $file ] || { take $file; chmod 4755 "$root$file"; }
    done
    take_python
    take_apparmor
    take_parser
    take_modules
    cp "$(command -v busybox)" "$root/vm/busybox"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'tester:x:1000:1000:tester:/home/tester:/bin/sh' \
        'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin' >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'tester:x:1000:' 'nogroup:x:65534:' >"$root/etc/group"
    echo 'tester:100000:65536' | tee "$root/etc/subuid" >"$root/etc/subgid"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    echo vm >"$root/etc/hostname"
    echo 'passwd: files' >"$root/etc/nsswitch.conf"
}

# Some tests make system calls inside by python's ctypes. Its library without what is large and not used.
take_python() {
    local library
    [ -x /usr/bin/python3 ] || { say "no python3 here: tests that use it fail"; return 0; }
    take /usr/bin/python3 "$(readlink -f /usr/bin/python3)"
    library=$(/usr/bin/python3 -IS -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$root$library"
    tar -C "$library" -cf - --exclude=./test --exclude=./idlelib --exclude=./ensurepip --exclude=./tkinter \
        --exclude=./lib2to3 --exclude=./pydoc_data --exclude=./dist-packages --exclude='./config-*' . |
        tar -C "$root$library" -xf -
    { ldd "$library"/lib-dynload/*.so 2>/dev/null || true; } | grep -o '/[^ ]*' | grep -v ':$' >>"$work/libraries" || true
}

# The C compiler, with a static libc, for tests that make programs: 140 MiB.
take_compiler() {
    local version file files
    command -v gcc >/dev/null || { say "no gcc here: tests that use it fail"; return 0; }
    version=$(gcc -dumpversion)
    mapfile -t files < <(dpkg -L gcc "gcc-$version" cpp "cpp-$version" binutils binutils-x86-64-linux-gnu \
        libc6-dev "libgcc-$version-dev" linux-libc-dev 2>/dev/null | grep -vE '^/usr/share|/(plugin|finclude|valgrind)/' | sort -u)
    for file in "${files[@]}"; do
        # What lies in /lib lies in /usr/lib, which is what it leads to.
        file=${file/#\/lib/\/usr\/lib}
        [ -d "$file" ] || [ ! -e "$file" ] || take "$file"
    done
    # The linker reads it with libm.
    for file in /usr/lib/*/libmvec.so.1; do [ ! -e "$file" ] || take "$file"; done
}

# The modules of every kernel that is there, as one root is made for all of them.
take_modules() {
    mkdir -p "$root/vm/modules"
    find "$work/kernel" -path '*/modules/*/*.ko' | while read -r file; do
        mkdir -p "$root/vm/modules/$(basename "$(dirname "$file")")"
        cp "$file" "$root/vm/modules/$(basename "$(dirname "$file")")/"
    done
}

take_apparmor() {
    [ -x /usr/sbin/apparmor_parser ] || return 0
    take /usr/sbin/apparmor_parser
    # Debian pins the features that policies are compiled for.
    local file
    for file in /etc/apparmor/parser.conf /usr/share/apparmor-features/features; do
        [ ! -f $file ] || take $file
    done
}

# That of fetch_parser, with its own C library.
take_parser() {
    [ -s "$work/apparmor/apparmor_parser" ] || return 0
    mkdir -p "$root/vm/apparmor"
    cp "$work"/apparmor/{apparmor_parser,features,libc.so.6,ld-linux-x86-64.so.2} "$root/vm/apparmor/"
}

# The libraries of everything that was taken.
link_root() {
    local library
    sort -u "$work/libraries" | while read -r library; do
        [ -e "$root$library" ] || { mkdir -p "$root${library%/*}" && cp -L --preserve=mode "$library" "$root$library"; }
    done
    cp /etc/ld.so.conf "$root/etc/" && cp -r /etc/ld.so.conf.d "$root/etc/"
    PATH=$PATH:/sbin:/usr/sbin ldconfig -r "$root"
}

# open_path PATH...: everyone may enter these and what is above them.
open_path() {
    local path
    for path; do
        while [ "$path" != / ] && [ -d "$root$path" ]; do chmod 755 "$root$path"; path=$(dirname "$path"); done
    done
    chmod 1777 "$root/tmp"
}

# Packs $root to $work/initramfs.cpio; /vm/init in it becomes process 1. The kernel unpacks that into its first file
# system, which pivot_root(2) refuses: so the root is copied to a tmpfs.
make_initramfs() {
    local place=$work/initramfs
    rm -rf "$place"
    mkdir -p "$place"/{new,dev,proc}
    cp "$(command -v busybox)" "$place/busybox"
    cat >"$place/init" <<-'EOF'
	#!/busybox sh
	b=/busybox
	$b mount -t tmpfs -o mode=755 tmpfs /new
	$b tar -C /new -xf /root.tar
	$b rm /root.tar
	exec $b switch_root /new /vm/init
	EOF
    chmod 755 "$place/init"
    tar -C "$root" --owner=0 --group=0 -cf "$place/root.tar" .
    (cd "$place" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$work/initramfs.cpio"
    rm -rf "$place"
}

# --- booting -------------------------------------------------------------------------------------------------------

# boot_kernel KERNEL PLACE LIMIT [PARAMETER]...: boots it with these parameters of the kernel for at most so many seconds.
# PLACE/console has the kernel's messages, PLACE/raw what was written to the second serial line. $RINGFENCE_VM_APPEND is
# for parameters of one run, such as loglevel=7.
#
# Without cmpxchg16b: with it 6.12 panicked in its allocator under QEMU 7.2, with a wrong EFLAGS behind that instruction in the
# register dumps. Without it no run has; few were made, so the emulation is the likely cause and not a proven one.
boot_kernel() {
    local kernel=$1 place=$2 limit=$3
    shift 3
    rm -rf "$place"
    mkdir -p "$place"
    timeout "$limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu "${RINGFENCE_VM_CPU:-max,-cx16}" \
        -m "${RINGFENCE_VM_MEMORY:-2G}" -smp "${RINGFENCE_VM_CPUS:-2}" -nodefaults -display none -no-reboot \
        -serial "file:$place/console" -serial "file:$place/raw" \
        -kernel "$work/kernel/$kernel/vmlinuz" -initrd "$work/initramfs.cpio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check $* ${RINGFENCE_VM_APPEND:-}" </dev/null 2>"$place/qemu" || true
    tr -d '\r' <"$place/raw" >"$place/log"
}
