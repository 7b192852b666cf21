/* Kills the process that watches over it. */
#include "../escape.h"

TRICK(kill_init) {
    pid_t watcher = getenv("ESC_INIT_IS_STARTER") != NULL ? starter : 1;
    kill(watcher, SIGSTOP);
    TRY(kill(watcher, SIGKILL));
    struct pollfd ended = {syscall(434 /* pidfd_open */, watcher, 0), POLLIN, 0};
    if (ended.fd < 0 && errno == ESRCH) return escaped("kill(init)");
    if (ended.fd < 0) return broken("pidfd_open");
    int is_over = poll(&ended, 1, 500);
    errno = 0;
    return is_over == 1 ? escaped("kill(init)") : blocked("it lives");
}
