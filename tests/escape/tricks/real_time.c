/* Takes a CPU by real-time scheduling. */
#include "../escape.h"

TRICK(real_time) {
    struct sched_param param = {.sched_priority = 1};
    TRY(sched_setscheduler(0, SCHED_FIFO, &param));
    return escaped("sched_setscheduler(SCHED_FIFO)");
}
