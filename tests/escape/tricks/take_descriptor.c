/* Takes a descriptor out of a process of the host. */
#include "../escape.h"

TRICK(take_descriptor) {
    int victim = syscall(434 /* pidfd_open */, (pid_t)told_number("ESC_PID"), 0);
    if (victim < 0 && errno == ENOSYS) return missing("pidfd_open");
    TRY(victim);
    int fd = syscall(438 /* pidfd_getfd */, victim, 77, 0);
    if (fd < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("pidfd_getfd");
    TRY(fd);
    char bytes[64];
    ssize_t length = pread(fd, bytes, sizeof bytes, 0);
    return length > 0 && has_secret(bytes, length) ? escaped("pidfd_getfd") : blocked("somebody else");
}
