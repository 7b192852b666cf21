/* Under Landlock gives a file a second name where it may read. */
#include "../escape.h"

TRICK(landlock_link) {
    char path[512];
    fresh_name(path, sizeof path, "/tree/open", "link");
    TRY(link("/tree/closed/secret", path));
    return steal_path(path);
}
