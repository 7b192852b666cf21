/* Likewise by clone3(2), whose flags no filter sees (CVE-2021-41133). */
#include "../escape.h"

TRICK(nested_clone3) {
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } args = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0};
    long child = syscall(435, &args, sizeof args);
    if (child == 0) _exit(0);
    if (child < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("clone3");
    TRY(child);
    return escaped("clone3(CLONE_NEWUSER)");
}
