/* Sets the host's clock: to what it is, and only in a virtual machine to something else. */
#include "../escape.h"

TRICK(set_clock) {
    struct timespec now;
    int own = getenv("ESC_MACHINE_OF_ITS_OWN") != NULL;
    if (!own && getenv("ESC_CONTROL")) return missing("a clock of its own");
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += own ? 3600 : 0;
    TRY(clock_settime(CLOCK_REALTIME, &now));
    now.tv_sec -= 3600;
    if (own) clock_settime(CLOCK_REALTIME, &now);
    return escaped("clock_settime");
}
