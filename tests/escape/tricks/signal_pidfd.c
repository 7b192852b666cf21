/* Signals a process of the host by a pidfd. */
#include "../escape.h"

TRICK(signal_pidfd) {
    int victim = syscall(434 /* pidfd_open */, (pid_t)told_number("ESC_PID"), 0);
    TRY(victim);
    TRY(syscall(424 /* pidfd_send_signal */, victim, SIGURG, NULL, 0));
    return escaped("pidfd_send_signal");
}
