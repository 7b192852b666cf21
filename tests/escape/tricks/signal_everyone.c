/* Signals all that it may; the state that the victim shares tells whether it was among them. */
#include "../escape.h"

TRICK(signal_everyone) {
    /* That the call succeeds says little: it may have reached the sandbox alone. So it looks who is there. */
    int alive = kill((pid_t)told_number("ESC_PID"), 0);
    TRY(kill(-1, SIGURG));
    if (alive < 0) return blocked("kill(-1) reached nobody outside");
    usleep(100000);
    return escaped("kill(-1)");
}
