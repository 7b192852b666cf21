/* Lowers the priority of every process of its user, the host's too where it is the same. */
#include "../escape.h"

TRICK(slow_user) {
    /* What it answers is about the last process that it found: one that it may not change says nothing of the others. */
    setpriority(PRIO_USER, 0, 7);
    errno = 0;
    int now = getpriority(PRIO_PROCESS, (pid_t)told_number("ESC_PID"));
    return now == 7 ? escaped("setpriority(PRIO_USER)") : blocked("nobody outside");
}
