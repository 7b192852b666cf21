/* Under Landlock binds a tree where it may read. */
#include "../escape.h"

TRICK(landlock_bind) {
    mkdir(in_tmp("tree"), 0755);
    TRY(mount("/tree/closed", in_tmp("tree"), NULL, MS_BIND, NULL));
    return steal_path(in_tmp("tree/secret"));
}
