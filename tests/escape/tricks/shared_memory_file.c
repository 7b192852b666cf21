/* Reads a file in the host's /dev/shm. */
#include "../escape.h"

TRICK(shared_memory_file) {
    return steal_path("/dev/shm/ringfence-planted");
}
