#!/bin/sh
# shellcheck disable=SC2154
# What a boot can do, for tests/vm/init: `configuration` begins one, `run` runs a test program in it. The settings `limit`,
# `filter`, `skip` and `behind` are in /vm/settings.
# shellcheck source=/dev/null
. /vm/settings

# at_least MAJOR MINOR: whether this kernel is of that version or later.
at_least() {
    version=$(uname -r)
    major=${version%%.*}
    minor=${version#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt "$1" ] || { [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }
}

# What Debian's kernel of this version has: words of tests/expected.rs.
kernel_words() {
    echo image clone3 openat2 close_range mount_api into_cgroup pidfd
    ! at_least 5 12 || echo mount_setattr
    # Debian's kernels have it from 6.1 on.
    if at_least 7 0; then
        echo landlock=8
    elif at_least 6 12; then
        echo landlock=6
    elif at_least 6 1; then
        echo landlock=2
    fi
}

# Words of a list but for those of another; `landlock` takes `landlock=N` away.
without() {
    for word in $1; do
        case " $2 " in *" ${word%%=*} "*) ;; *) echo "$word" ;; esac
    done
}

knob() { [ -e "/proc/sys/$1" ] && echo "$2" >"/proc/sys/$1"; }

# Ubuntu's restriction gives whoever makes a user namespace a profile without capabilities, so that the clone succeeds and a
# later step is refused. Debian's kernels lack that switch. Its effect is emulated by profiles of the test programs; what
# is refused is AppArmor's own doing. Without capabilities from the start the clone itself is refused; with a profile that
# the set-up enters when its image is executed, a later step is.
apparmor_on() {
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || { why="AppArmor is not on"; return 1; }
    parser=/usr/sbin/apparmor_parser options="" loader=""
    [ "$1" != userns ] || userns_parser || return 1
    [ -x $parser ] || { why="no apparmor_parser"; return 1; }
    # A memfd is called "/" here.
    rules='network, signal, ptrace, unix, dbus, mount, umount, pivot_root, /{,**} rwlkm, /[^m]** ix,'
    flags='flags=(attach_disconnected,mediate_deleted)'
    case $1 in
    early) echo "profile unprivileged_userns $programs_below/** $flags { $rules / ix, deny capability, }" ;;
    late)
        echo "profile unprivileged_userns $flags { $rules / ix, deny capability, }"
        echo "profile caller $programs_below/** $flags { $rules capability, / px -> unprivileged_userns, }"
        ;;
    userns) echo "profile no_userns $programs_below/** $flags { $rules / ix, capability, mqueue, io_uring, }" ;;
    esac >/run/profile
    # shellcheck disable=SC2086
    $loader $parser $options --skip-cache --replace /run/profile >/run/out 2>&1 || {
        why="apparmor_parser: $(tail -n 1 /run/out)"
        rm /run/profile
        return 1
    }
}

# The kernel's own mediation of user namespaces, without Ubuntu's switch: since Linux 6.7 a profile whose features have it, and
# that lacks the rule `userns`, may make none. The parser is another suite's, and comes with its C library.
userns_parser() {
    grep -qs userns_create /sys/kernel/security/apparmor/features/namespaces/mask || {
        why="AppArmor of this kernel does not mediate user namespaces"
        return 1
    }
    parser=/vm/apparmor/apparmor_parser options="--policy-features /vm/apparmor/features"
    loader="/vm/apparmor/ld-linux-x86-64.so.2 --library-path /vm/apparmor"
    [ -x $parser ] || why="no apparmor_parser of version 4"
    [ -z "$why" ]
}

# configuration NAME SETUP FILTER LESS EXPECT: what the following runs have around them. FILTER are calls that a filter takes
# away, LESS the words of the kernel that are therefore not expected, EXPECT further words. A `-` stands for nothing.
configuration() {
    echo "@@config $1"
    config=$1 setup=$2 calls=$3 less=$4 words=$5 why=
    [ "$calls" != - ] || calls=
    [ "$less" != - ] || less=
    [ "$words" != - ] || words=
    # shellcheck disable=SC2086
    [ ! -e /run/profile ] || { $loader $parser $options --remove /run/profile && rm /run/profile; }
    knob user/max_user_namespaces "$most"
    knob kernel/unprivileged_userns_clone 1
    case $setup in
    -) ;;
    limit) knob user/max_user_namespaces 0 || why="no user.max_user_namespaces" ;;
    debian) knob kernel/unprivileged_userns_clone 0 || why="this kernel has no kernel.unprivileged_userns_clone" ;;
    apparmor) apparmor_on early ;;
    apparmor-late) apparmor_on late ;;
    apparmor-userns) apparmor_on userns ;;
    esac
    [ -z "$why" ] || echo "@@note $config $why"
}
most=$(cat /proc/sys/user/max_user_namespaces)

# Puts the shell that runs this into the groups of that caller.
enter_groups() {
    set -- "$1" /sys/fs/cgroup
    [ -e /sys/fs/cgroup/cgroup.procs ] || set -- "$1" /sys/fs/cgroup/*
    group=$1
    shift
    for directory; do
        [ -L "$directory" ] || [ ! -e "$directory$group/cgroup.procs" ] ||
            sh -c 'echo $PPID' >"$directory$group/cgroup.procs"
    done
}

# run CALLER NAME PROGRAM [TEXT]: the tests with TEXT in their name. It has a process group, an end and a limit of its own.
run() {
    [ -z "$why" ] || return 0
    caller=$1 name=$2 program=$3 only=${4:-$filter} group=
    case $caller in
    root) as="env HOME=/root USER=root" ;;
    user)
        as="setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/tester USER=tester"
        group=/user/tests
        ;;
    esac
    # shellcheck disable=SC2046,SC2086
    set -- $(without "$(kernel_words)" "$less") $words "caller=$caller" ${calls:+filter}
    RINGFENCE_EXPECT=$(echo "$*" | tr ' ' ,)
    export RINGFENCE_EXPECT RUST_BACKTRACE=0
    # The clock in here is nobody else's.
    export RINGFENCE_ESCAPE_PAYLOAD=/vm/escape ESC_MACHINE_OF_ITS_OWN=1 RINGFENCE_THROW_AWAY_MACHINE=1
    # Faults and rounds are few in here, as each takes long under emulation.
    export RINGFENCE_SWEEP=2 RINGFENCE_FEWER=10
    if [ -n "$calls" ]; then unset RINGFENCE_UNFILTERED; else export RINGFENCE_UNFILTERED=1; fi
    begun=$(cut -d. -f1 /proc/uptime)
    (
        enter_groups "$group"
        # shellcheck disable=SC2086
        exec $as timeout -k 5 "$limit" ${calls:+"$behind" $calls --} "$program" $skip $only
    ) </dev/null >/run/out 2>&1
    status=$?
    echo "@@begin $config $caller $name"
    cat /run/out
    echo
    echo "@@end $status $(($(cut -d. -f1 /proc/uptime) - begun))"
}
