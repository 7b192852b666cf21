/* Lowers the priority of a process of the host. */
#include "../escape.h"

TRICK(slow_process) {
    TRY(setpriority(PRIO_PROCESS, (pid_t)told_number("ESC_PID"), 1));
    return escaped("setpriority");
}
