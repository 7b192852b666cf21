/* Reads relative to the directory that the caller was in. */
#include "../escape.h"

TRICK(inherited_directory) {
    char where[4096];
    TRY(syscall(SYS_getcwd, where, sizeof where));
    int file = open("../secret", O_RDONLY);
    TRY(file);
    return steal(file, "open(../secret)");
}
