/* Turns process accounting off. */
#include "../escape.h"

TRICK(accounting) {
    TRY(acct(NULL));
    return escaped("acct(NULL)");
}
