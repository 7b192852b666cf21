/* Pins a process of the host to CPUs. */
#include "../escape.h"

TRICK(pin_process) {
    cpu_set_t cpus;
    TRY(sched_getaffinity((pid_t)told_number("ESC_PID"), sizeof cpus, &cpus));
    TRY(sched_setaffinity((pid_t)told_number("ESC_PID"), sizeof cpus, &cpus));
    return escaped("sched_setaffinity");
}
