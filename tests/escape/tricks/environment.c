/* Reads a secret of the caller's environment. */
#include "../escape.h"

TRICK(environment) {
    const char *secret = getenv("PLANTED");
    errno = 0;
    return secret != NULL ? escaped("getenv") : blocked("getenv");
}
