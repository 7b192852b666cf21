/* Shifts the host's clock, by nothing. */
#include "../escape.h"

TRICK(shift_clock) {
    struct timex shift = {.modes = ADJ_SETOFFSET};
    TRY(clock_adjtime(CLOCK_REALTIME, &shift));
    return escaped("clock_adjtime(ADJ_SETOFFSET, 0)");
}
