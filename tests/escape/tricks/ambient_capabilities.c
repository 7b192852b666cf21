/* Has what the caller had in its ambient set. */
#include "../escape.h"

TRICK(ambient_capabilities) {
    errno = 0;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0) == 1 ? escaped("the ambient set") : blocked("the ambient set");
}
