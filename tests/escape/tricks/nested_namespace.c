/* Makes a user namespace, and has every capability in it. */
#include "../escape.h"

TRICK(nested_namespace) {
    TRY(unshare(CLONE_NEWUSER));
    return effective() > 0 ? escaped("unshare(CLONE_NEWUSER)") : blocked("no capability");
}
