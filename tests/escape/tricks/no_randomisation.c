/* Turns the randomisation of addresses off for what it executes. */
#include "../escape.h"

TRICK(no_randomisation) {
    long done = syscall(SYS_personality, 0x0040000);
    TRY(done);
    return escaped("personality(ADDR_NO_RANDOMIZE)");
}
