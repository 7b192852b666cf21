/* Mounts the host's terminals. */
#include "../escape.h"

TRICK(fresh_devpts) {
    mkdir(in_tmp("pts"), 0755);
    TRY(mount("devpts", in_tmp("pts"), "devpts", 0, NULL));
    return escaped("mount devpts");
}
