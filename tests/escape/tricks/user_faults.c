/* Holds the kernel up in the middle of a copy, by userfaultfd(2). */
#include "../escape.h"

TRICK(user_faults) {
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* USER_MODE_ONLY */);
    if (fd < 0 && (errno == ENOSYS || errno == EINVAL) && getenv("ESC_CONTROL")) return missing("userfaultfd in user mode only");
    TRY(fd);
    return escaped("userfaultfd");
}
