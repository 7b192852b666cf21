/* Reads a key of the caller's user keyring. */
#include "../escape.h"

TRICK(user_key) {
    char bytes[128];
    long key = syscall(SYS_keyctl, 10 /* SEARCH */, -4, "user", told("ESC_USER_KEY"), 0);
    TRY(key);
    long length = syscall(SYS_keyctl, 11 /* READ */, key, bytes, sizeof bytes);
    TRY(length);
    return has_secret(bytes, length) ? escaped("keyctl(READ)") : blocked("somebody else's");
}
