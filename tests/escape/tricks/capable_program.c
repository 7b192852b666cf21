/* Executes a program with file capabilities. */
#include "../escape.h"

static int execute_capable(void *unused) {
    char path[512];
    (void)unused;
    snprintf(path, sizeof path, "%s/capable", told("ESC_RW"));
    if (access(path, X_OK) < 0) return 0;
    execl(path, path, "caps", NULL);
    return 127;
}

TRICK(capable_program) {
    int done = in_child(execute_capable, NULL);
    /* One whose capabilities the bounding set has not cannot be executed at all. */
    errno = done == 127 ? EPERM : 0;
    return done == 10 ? escaped("execve") : blocked("execve gained nothing");
}
