/* Reads a System V segment of the host. */
#include "../escape.h"

TRICK(shared_segment) {
    int segment = shmget(0x52460001, 0, 0);
    TRY(segment);
    char *bytes = shmat(segment, NULL, SHM_RDONLY);
    if (bytes == (void *)-1) return blocked("shmat");
    return has_secret(bytes, 64) ? escaped("shmat") : blocked("somebody else's");
}
