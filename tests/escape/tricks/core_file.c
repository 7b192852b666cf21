/* Leaves a core file, with what it had in memory. */
#include "../escape.h"

TRICK(core_file) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit most = {1 << 20, 1 << 20};
        if (setrlimit(RLIMIT_CORE, &most) < 0) _exit(errno);
        if (chdir(told("ESC_RW")) < 0) _exit(255);
        abort();
    }
    waitpid(child, &status, 0);
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (WIFSIGNALED(status) && WCOREDUMP(status)) return escaped("a core");
    char pattern[8] = "";
    int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY);
    if (fd >= 0 && read(fd, pattern, 7) >= 0 && pattern[0] == '|' && getenv("ESC_CONTROL")) return missing("cores as files");
    return blocked("no core");
}
