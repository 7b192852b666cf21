/* Asks whether it shares something with a process of the host, an oracle for its addresses. */
#include "../escape.h"

TRICK(compare_processes) {
    long done = syscall(SYS_kcmp, (pid_t)told_number("ESC_PID"), getpid(), 1 /* KCMP_VM */, 0, 0);
    if (done < 0 && errno == ENOSYS && getenv("ESC_CONTROL")) return missing("kcmp");
    TRY(done);
    return escaped("kcmp");
}
