/* Under Landlock moves a directory to where it may read. */
#include "../escape.h"

TRICK(landlock_rename) {
    TRY(rename("/tree/closed/below", "/tree/open/below"));
    enum end end = steal_path("/tree/open/below/secret");
    rename("/tree/open/below", "/tree/closed/below");
    return end;
}
