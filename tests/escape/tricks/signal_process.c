/* Signals a process of the host. */
#include "../escape.h"

TRICK(signal_process) {
    TRY(kill((pid_t)told_number("ESC_PID"), SIGURG));
    usleep(100000);
    return escaped("kill");
}
