/* Maps memory that is both writable and executable. */
#include "../escape.h"

TRICK(write_and_execute) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? blocked("mmap(WRITE | EXEC)") : escaped("mmap(WRITE | EXEC)");
}
