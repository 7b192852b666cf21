/* Sandboxes with one mistake each, for the controls: what follows on the command line runs in them. */
#include "escape.h"

static char *jail(void) {
    static char path[512];
    snprintf(path, sizeof path, "%s/jail", told("ESC_SCRATCH"));
    return path;
}

static int privileges(void) {
    return geteuid() == 0 && permitted() != 0 ? 0 : become_root_of_a_namespace();
}

static int own_mounts(void) {
    if (privileges() < 0 || unshare(CLONE_NEWNS) < 0) return -1;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

/* A chroot jail with a /proc. */
static int jailed(void) {
    char place[600];
    snprintf(place, sizeof place, "%s/proc", jail());
    if (own_mounts() < 0 || mount("/proc", place, NULL, MS_BIND | MS_REC, NULL) < 0) return -1;
    return chroot(jail());
}

/* The jail moved over the root, as switch_root(8) does it: the old root stays below. */
static int moved(void) {
    char place[600];
    if (own_mounts() < 0 || mount(jail(), jail(), NULL, MS_BIND, NULL) < 0) return -1;
    snprintf(place, sizeof place, "%s/proc", jail());
    if (mount("/proc", place, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(jail()) < 0) return -1;
    return mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0 ? -1 : 0;
}

/* pivot_root(2) into the jail, which has a tmpfs at /tmp; the old root stays at /old. */
static int pivoted(void) {
    char old[600];
    if (own_mounts() < 0 || mount(jail(), jail(), NULL, MS_BIND | MS_REC, NULL) < 0) return -1;
    snprintf(old, sizeof old, "%s/old", jail());
    if (syscall(SYS_pivot_root, jail(), old) < 0 || chdir("/") < 0) return -1;
    return mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
}

/* A bind that is made read-only by mount(2), which leaves the mounts below it as they are. */
static int remounted(void) {
    char place[600];
    snprintf(place, sizeof place, "%s/place", told("ESC_SCRATCH"));
    if (own_mounts() < 0 || mount(told("ESC_RO"), place, NULL, MS_BIND | MS_REC, NULL) < 0) return -1;
    setenv("ESC_RO", place, 1);
    return mount(NULL, place, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
}

/* A caller that drops its capabilities but stays uid 0 and keeps the bounding set. */
static int dropped(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    if (privileges() < 0) return -1;
    return syscall(SYS_capset, &header, none);
}

/* A caller that gives up uid 0, but not what a setuid program could give back. */
static int other_user(void) {
    return setgid(65534) < 0 || setuid(65534) < 0 ? -1 : 0;
}

/* A supervisor that is a process like any other. */
static int supervised(void) {
    pid_t child = fork();
    if (child > 0) {
        waitpid(child, NULL, 0);
        _exit(0);
    }
    starter = getppid();
    return child;
}

int naive(const char *kind) {
    if (strcmp(kind, "supervisor") == 0) return supervised();
    if (strcmp(kind, "chroot") == 0) return jailed() < 0 || chdir("/") < 0 ? -1 : 0;
    /* The directory in which the caller was stays the program's. */
    if (strcmp(kind, "chroot-without-chdir") == 0) return jailed();
    if (strcmp(kind, "move") == 0) return moved();
    if (strcmp(kind, "mounts") == 0) return own_mounts();
    if (strcmp(kind, "pivot-without-umount") == 0) return pivoted();
    if (strcmp(kind, "remount") == 0) return remounted();
    if (strcmp(kind, "capset-only") == 0) return dropped();
    if (strcmp(kind, "other-user") == 0) return other_user();
    errno = EINVAL;
    return -1;
}
