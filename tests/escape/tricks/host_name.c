/* Changes the host's name to itself. */
#include "../escape.h"

TRICK(host_name) {
    char name[65] = "";
    gethostname(name, 64);
    TRY(sethostname(name, strlen(name)));
    return escaped("sethostname");
}
