/* Executes a setuid program of another user. */
#include "../escape.h"

static int execute(void *name) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", told("ESC_RW"), (char *)name);
    execl(path, path, "ids", NULL);
    return 127;
}

TRICK(setuid_program) {
    int done = in_child(execute, "/suid");
    errno = 0;
    if (done == 127) return broken("it could not be executed");
    return done == 10 ? escaped("execve") : blocked("execve gained nothing");
}
