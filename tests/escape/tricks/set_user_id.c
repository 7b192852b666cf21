/* Becomes root inside by setuid(2). */
#include "../escape.h"

TRICK(set_user_id) {
    TRY(setresuid(0, 0, 0));
    return escaped("setresuid(0)");
}
