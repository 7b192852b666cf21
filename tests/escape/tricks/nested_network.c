/* Makes a network namespace, for its capabilities over the kernel's packet filters. */
#include "../escape.h"

TRICK(nested_network) {
    TRY(unshare(CLONE_NEWUSER | CLONE_NEWNET));
    return escaped("unshare(CLONE_NEWUSER | CLONE_NEWNET)");
}
