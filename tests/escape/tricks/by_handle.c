/* Opens a file outside of a bound tree by its handle ("shocker"). */
#include "../escape.h"

TRICK(by_handle) {
    struct { struct file_handle handle; unsigned char bytes[128]; } buffer = {.handle.handle_bytes = 0};
    const char *text = told("ESC_HANDLE");
    buffer.handle.handle_type = strtol(text, (char **)&text, 10);
    while (*text == ':') buffer.handle.f_handle[buffer.handle.handle_bytes++] = strtol(text + 1, (char **)&text, 10);
    int root = open(told("ESC_RW"), O_RDONLY | O_DIRECTORY);
    if (root < 0) return broken("a bound tree");
    int fd = open_by_handle_at(root, &buffer.handle, O_RDONLY);
    TRY(fd);
    return steal(fd, "open_by_handle_at");
}
