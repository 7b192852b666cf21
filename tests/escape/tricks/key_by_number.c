/* Reads a key of the host that anybody may read, by its number: keys are in no namespace. */
#include "../escape.h"

TRICK(key_by_number) {
    char bytes[128];
    long length = syscall(SYS_keyctl, 11 /* READ */, told_number("ESC_OPEN_KEY"), bytes, sizeof bytes);
    TRY(length);
    return has_secret(bytes, length) ? escaped("keyctl(READ)") : blocked("somebody else's");
}
