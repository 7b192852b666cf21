/* Traces a process of the host. */
#include "../escape.h"

TRICK(trace) {
    TRY(ptrace(PTRACE_SEIZE, (pid_t)told_number("ESC_PID"), 0, 0));
    return escaped("ptrace(PTRACE_SEIZE)");
}
