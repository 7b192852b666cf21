/* Uses up the keys that the user may have. */
#include "../escape.h"

TRICK(add_key) {
    TRY(syscall(SYS_add_key, "user", "ringfence-added", "x", 1, -2 /* of the process, so it ends with it */));
    return escaped("add_key");
}
