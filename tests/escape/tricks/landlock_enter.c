/* Under Landlock enters a directory that was passed open, and reads relative to it. */
#include "../escape.h"

TRICK(landlock_enter) {
    if (fchdir(20) < 0) return broken("fchdir(20)");
    return steal_path("secret");
}
