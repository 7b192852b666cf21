/* Drops groups, which may be what keeps it from a file (CVE-2014-8989). */
#include "../escape.h"
#include <grp.h>

TRICK(drop_groups) {
    TRY(setgroups(0, NULL));
    return escaped("setgroups(0)");
}
