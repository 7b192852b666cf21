/* Changes a resource limit of a process of the host. */
#include "../escape.h"

TRICK(limit_process) {
    struct rlimit old;
    TRY(prlimit((pid_t)told_number("ESC_PID"), RLIMIT_NOFILE, NULL, &old));
    TRY(prlimit((pid_t)told_number("ESC_PID"), RLIMIT_NOFILE, &old, NULL));
    return escaped("prlimit");
}
